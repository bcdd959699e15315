# SPDX-License-Identifier: Apache-2.0
"""Bad input: which exception, and that its text names the value, the range and the mend."""
import lacuna
import pytest
import torch
from lacuna import _library


def refuses(error, *words):
    return pytest.raises(error, match="(?s)" + ".*".join(words))


def test_types(tensors):
    q, k, v = tensors(8)
    with refuses(TypeError, "q is torch.float32, k torch.bfloat16", r"\.to\(torch.float32\)"):
        lacuna.attention(q, k.bfloat16(), v.bfloat16())
    with refuses(TypeError, "q: torch.float64", "float32, float16 or bfloat16", r"\.float\(\)"):
        lacuna.attention(q.double(), k.double(), v.double())
    with refuses(TypeError, "k: got list", "torch.Tensor"):
        lacuna.attention(q, k.tolist(), v)
    with refuses(TypeError, "v: layout torch.sparse_coo", "to_dense"):
        lacuna.attention(q, k, v.to_sparse())
    with refuses(TypeError, "method: got int", "xattention:stride=8"):
        lacuna.attention(q, k, v, 8)
    with refuses(TypeError, "mask: torch.float32, need bool"):
        lacuna.attention(q, k, v, mask=torch.zeros(8, 8))


def test_shapes(tensors):
    q, k, v = tensors(8)
    with refuses(ValueError, r"q: shape \[4, 8, 32\], need 4 dimensions"):
        lacuna.attention(q[0], k[0], v[0])
    with refuses(ValueError, "4 query heads over 3 KV heads", "multiple"):
        lacuna.attention(q, *(torch.randn(2, 3, 8, 32) for _ in range(2)))
    with refuses(ValueError, "batch: q has 2, k 1", r"expand\(\)"):
        lacuna.attention(q, k[:1], v[:1])
    with refuses(ValueError, "k has 2 heads x 8 tokens, v 2 x 7"):
        lacuna.attention(q, k, v[:, :, :7])
    with refuses(ValueError, "head_dim: q has 32, k 16"):
        lacuna.attention(q, k[..., :16], v)
    with refuses(ValueError, "q: head_dim 1025, need 1..1024"):
        lacuna.attention(*tensors(8, dim=1025))
    with refuses(ValueError, r"mask: shape \[2, 4, 8, 8\]", "one for all heads"):
        lacuna.attention(q, k, v, mask=torch.ones(2, 4, 8, 8, dtype=torch.bool))
    with refuses(ValueError, r"sinks: shape \[3\], need \[4\]"):
        lacuna.attention(q, k, v, sinks=torch.zeros(3))


def test_values(tensors):
    q, k, v = tensors(8)
    with refuses(ValueError, "did you mean 'xattention'"):
        lacuna.attention(q, k, v, "xatention")
    with refuses(ValueError, "stride", "got 7"):
        lacuna.attention(q, k, v, "xattention:stride=7")
    with refuses(ValueError, "precision: got 'low', need fast or high"):
        lacuna.attention(q, k, v, precision="low")
    with refuses(ValueError, "scale: got nan"):
        lacuna.attention(q, k, v, scale=float("nan"))
    with refuses(ValueError, "softcap: got -1"):
        lacuna.attention(q, k, v, softcap=-1)
    with refuses(ValueError, "layer: got -1, need 0 or more"):
        lacuna.attention(q, k, v, layer=-1)
    with refuses(ValueError, "audit: got 'maybe'"):
        lacuna.Session(audit="maybe")
    with refuses(ValueError, "max_loss: got '2'"):
        lacuna.Session(max_loss=2)
    with refuses(ValueError, "threads: got 0, need 1..1024"):
        lacuna.set_num_threads(0)


def test_a_forced_kernel_gives_its_reasons(tensors):
    session = lacuna.Session("dense", precision="high", options="kernel=cpu.avx2")
    with refuses(RuntimeError, "cpu.avx2: "):
        lacuna.attention(*tensors(64, dim=1000), session)


def test_no_gradient_by_name(tensors):
    q, k, v = tensors(400, grad=True)
    with refuses(RuntimeError, "spargeattn", "no backward", "pv_skip"):
        lacuna.attention(q, k, v, "spargeattn:mass=0.9:pv_skip=5").sum().backward()
    with refuses(RuntimeError, "auto", "plan cannot be made apart"):
        lacuna.attention(q, k, v, "auto").sum().backward()
    with refuses(RuntimeError, "contract"):
        lacuna.attention(q, k, v, lacuna.Session("xattention", max_loss=0.01)).sum().backward()
    with refuses(RuntimeError, "no second derivative"):
        gradient, = torch.autograd.grad(lacuna.attention(q, k, v).sum(), q, create_graph=True)
        gradient.sum().backward()


@pytest.mark.parametrize("version, good", [("2.8.1", False), ("1.13.0", False), ("2.9.0", True), ("2.13.0+cpu", True), ("3.0.0a0", True)])
def test_a_torch_too_old_is_named(version, good):
    if good:
        _library.check_torch(version)
    else:
        with refuses(ImportError, "2.9 or newer", version, "pip install"):
            _library.check_torch(version)
