# SPDX-License-Identifier: Apache-2.0
import pytest
import torch


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(1)


@pytest.fixture
def tensors():
    """q, k, v of a grouped causal call."""

    def make(n=300, n_keys=None, *, batch=2, heads=4, kv_heads=2, dim=32, value_dim=None, dtype=torch.float32, grad=False,
             device="cpu"):
        keys = n if n_keys is None else n_keys
        shapes = (batch, heads, n, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim or dim)
        return [torch.randn(s).to(device, dtype).requires_grad_(grad) for s in shapes]

    return make
