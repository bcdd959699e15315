# SPDX-License-Identifier: Apache-2.0
import pytest
import torch


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(1)


@pytest.fixture
def tensors():
    """q, k, v of a grouped causal call."""

    def make(n=300, n_keys=None, *, batch=2, heads=4, kv_heads=2, dim=32, value_dim=None, dtype=torch.float32, grad=False):
        keys = n if n_keys is None else n_keys
        shapes = (batch, heads, n, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim or dim)
        return [torch.randn(s).to(dtype).requires_grad_(grad) for s in shapes]

    return make
