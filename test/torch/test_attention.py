# SPDX-License-Identifier: Apache-2.0
"""lacuna.attention against the textbook: values, gradients, layouts, edges."""
import lacuna
import plain
import pytest
import torch

WINDOW = "streamingllm:sink=4:window=50"


def close(got, want, tolerance):
    assert got.shape == want.shape
    assert not got.isnan().any()
    worst = (got.double() - want).nan_to_num(0).abs().max().item() if got.numel() else 0.0
    assert worst < tolerance, worst


@pytest.mark.parametrize("n, n_keys", [(300, 300), (70, 300), (1, 300), (40, 7)])
@pytest.mark.parametrize("causal", [True, False])
def test_dense_is_the_formula(tensors, n, n_keys, causal):
    q, k, v = tensors(n, n_keys, value_dim=48)
    out, lse = lacuna.attention(q, k, v, causal=causal, return_lse=True)
    want, want_lse = plain.attention(q, k, v, plain.visible(n, n_keys, causal))
    close(out, want, 1e-4)
    assert torch.equal(lse.isinf(), want_lse.isinf())
    close(lse.masked_fill(lse.isinf(), 0), want_lse.masked_fill(want_lse.isinf(), 0), 1e-4)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float16, 2e-2), (torch.bfloat16, 3e-2)])
def test_types_come_back_as_they_came(tensors, dtype, tolerance):
    q, k, v = tensors(dtype=dtype)
    out = lacuna.attention(q, k, v, WINDOW)
    assert out.dtype == dtype
    close(out, plain.attention(q, k, v, plain.window(300, 300, 4, 50))[0], tolerance)


def test_scale_softcap_sinks_and_mask(tensors):
    q, k, v = tensors(60)
    sinks, mask = torch.randn(4), torch.rand(2, 1, 60, 60) < 0.5
    out, lse = lacuna.attention(q, k, v, mask=mask, scale=0.3, softcap=2.0, sinks=sinks, return_lse=True)
    want, want_lse = plain.attention(q, k, v, mask, scale=0.3, softcap=2.0, sinks=sinks)
    close(out, want, 1e-4)
    close(lse, want_lse, 1e-4)
    both = lacuna.attention(q, k, v, mask=mask[:1], causal=True)
    close(both, plain.attention(q, k, v, mask[:1] & plain.visible(60, 60))[0], 1e-4)
    close(lacuna.attention(q, k, v, scale=0.0), plain.attention(q, k, v, plain.visible(60, 60), scale=0.0)[0], 1e-4)


@pytest.mark.parametrize("method", ["xattention:stride=8:block=64:mass=0.5", "minference:vertical=30:slash=10:last_rows=16",
                                    "flexprefill", "trianglemix:layer_start=0:sink=4:window=50:last_rows=60", "powerattention"])
def test_what_methods_keep_is_a_part(tensors, method):
    """The sum of exponentials over a part is less than that over all keys, in some rows at least, and never more."""
    q, k, v = tensors(1000, batch=1)
    out, lse = lacuna.attention(q, k, v, method, return_lse=True)
    _, dense = plain.attention(q, k, v, plain.visible(1000, 1000))
    assert not out.isnan().any()
    assert (lse < dense + 1e-4).all() and (lse < dense - 0.01).any()
    assert (lse[:, :, :50] - dense[:, :, :50]).abs().max() < 1e-4  # what is near is kept


@pytest.mark.parametrize("method, seen", [("dense", plain.visible(200, 200)), (WINDOW, plain.window(200, 200, 4, 50))])
def test_gradients_are_the_formulas(tensors, method, seen):
    q, k, v = tensors(200, value_dim=48, grad=True)
    sinks = torch.randn(4, requires_grad=True)
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v, sinks)]
    weight, weight_lse = torch.randn(2, 4, 200, 48), torch.randn(2, 4, 200)
    out, lse = lacuna.attention(q, k, v, method, softcap=3.0, sinks=sinks, return_lse=True)
    ((out * weight).sum() + (lse * weight_lse).sum()).backward()
    want, want_lse = plain.attention(*twins[:3], seen, softcap=3.0, sinks=twins[3])
    ((want * weight).sum() + (want_lse * weight_lse).sum()).backward()
    for mine, theirs in zip((q, k, v, sinks), twins):
        close(mine.grad, theirs.grad.double(), 2e-3)


def test_gradients_through_what_expands_and_is_cut(tensors):
    """out.sum() gives a gradient that is one number in memory; k and v come as one tensor, cut in two."""
    q, k, v = tensors(100, grad=True)
    both = torch.cat([k, v], 3).detach().requires_grad_()
    lacuna.attention(q, both[..., :32], both[..., 32:]).sum().backward()
    twins = [x.detach().clone().requires_grad_() for x in (q, both)]
    plain.attention(twins[0], twins[1][..., :32], twins[1][..., 32:], plain.visible(100, 100))[0].sum().backward()
    close(q.grad, twins[0].grad.double(), 1e-3)
    close(both.grad, twins[1].grad.double(), 1e-3)


def test_masked_gradients_of_a_padded_batch(tensors):
    q, k, v = tensors(80, grad=True)
    mask = plain.visible(80, 80)[None, None].repeat(2, 1, 1, 1)
    mask[1, :, :, :30] = False  # the second sequence is padded at the left
    weight = torch.randn(2, 4, 80, 32)
    (lacuna.attention(q, k, v, "streamingllm:sink=2:window=20", mask=mask) * weight).sum().backward()
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    seen = mask.clone()
    seen[0] &= plain.window(80, 80, 2, 20)
    out = plain.attention(*(t[:1] for t in twins), seen[:1])[0]
    (out * weight[:1]).sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad[:1], theirs.grad[:1].double(), 1e-3)
    assert not mine.grad[1, :, :30].any()


def test_any_strides(tensors):
    q, k, v = tensors(90)
    want = lacuna.attention(q, k, v)
    token_major = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*token_major), want)
    every_second = [torch.stack([x, torch.zeros_like(x)], 4).flatten(3)[..., ::2] for x in (q, k, v)]
    assert every_second[0].stride(3) == 2
    assert torch.equal(lacuna.attention(*every_second), want)
    shared = [x[:1].expand(3, -1, -1, -1) for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*shared)[2], want[0])
    one_head = [q, k[:, :1].expand(-1, 2, -1, -1), v[:, :1].expand(-1, 2, -1, -1)]
    close(lacuna.attention(*one_head), lacuna.attention(q, k[:, :1], v[:, :1]).double(), 1e-6)


@pytest.mark.parametrize("shape", [dict(batch=0), dict(n=0), dict(n=0, n_keys=10), dict(n=5, n_keys=0), dict(n=1), dict(dim=1, value_dim=1)])
def test_small_and_empty_calls(tensors, shape):
    q, k, v = tensors(**{"n": 9, **shape}, grad=True)
    out, lse = lacuna.attention(q, k, v, return_lse=True)
    want, _ = plain.attention(q, k, v, plain.visible(q.shape[2], k.shape[2]))
    close(out, want, 1e-4)
    out.sum().backward()
    assert all(x.grad is not None and not x.grad.isnan().any() for x in (q, k, v))


def test_threads_change_nothing(tensors):
    q, k, v = tensors(200)
    before = lacuna.get_num_threads()
    try:
        results = []
        for n in (1, 3):
            lacuna.set_num_threads(n)
            assert lacuna.get_num_threads() == n
            results.append(lacuna.attention(q, k, v, WINDOW))
        assert torch.equal(*results)
    finally:
        lacuna.set_num_threads(before)
