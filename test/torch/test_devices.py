# SPDX-License-Identifier: Apache-2.0
"""What holds for 16-bit tensors on every device: the CPU always, CUDA where there is one. Results are held against the textbook,
or against the CPU in float32, which test_attention.py and test_plans.py hold against the textbook."""
import lacuna
import plain
import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

DTYPES = [torch.bfloat16, torch.float16]
TOLERANCE = {torch.bfloat16: 4e-2, torch.float16: 2e-2}
WINDOW = "streamingllm:sink=4:window=50"
# Of a call of 300 rows x 300 keys or more; (rows, keys) that the plan is for.
PLANS = {
    "window": lambda q, k: lacuna.plan(q, k, method=WINDOW),
    "blocks": lambda q, k: lacuna.plan(q, k, method="xattention:stride=8:block=64:mass=0.5"),
    "ranges": lambda q, k: lacuna.plan(q, k, method="minference:vertical=30:slash=10:last_rows=16"),
    "map": lambda q, k: lacuna.Plan.from_map(
        torch.rand(2, 2, -(-q.shape[2] // 128), -(-k.shape[2] // 64)) < 0.6, n_rows=q.shape[2], n_keys=k.shape[2]),
    "tokens": lambda q, k: lacuna.Plan.from_topk(
        torch.stack([torch.randperm(k.shape[2])[:40] for _ in range(q.shape[2])])[None, None], n_rows=q.shape[2], n_keys=k.shape[2]),
    "mask": lambda q, k: lacuna.Plan.from_block_mask(create_block_mask(
        lambda b, h, i, j: (i * 7 + j * 3) % 5 < 3, None, None, q.shape[2], k.shape[2], device="cpu")),
    "everything": lambda q, k: lacuna.plan(q, k, method="dense", causal=False),
}


@pytest.fixture(autouse=True)
def fresh_compiler():
    """The functions compiled here are few, their arguments' kinds many: dynamo counts recompilations per function."""
    torch._dynamo.reset()


def close(got, want, tolerance):
    assert got.shape == want.shape
    assert not got.isnan().any()
    want = want.to(got.device).double()
    worst = ((got.double() - want).abs() / want.abs().clamp(1)).max().item() if got.numel() else 0.0
    assert worst < tolerance, worst


def on_cpu(tensors, grad=False):
    return [t.detach().float().cpu().requires_grad_(grad) for t in tensors]


def both_lse(got, want, tolerance):
    got = got.cpu()
    assert torch.equal(got.isinf(), want.isinf())
    close(got.masked_fill(got.isinf(), 0), want.masked_fill(want.isinf(), 0), tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, n_keys", [(300, 300), (70, 300), (16, 300), (1, 300), (40, 7)])
@pytest.mark.parametrize("causal", [True, False])
def test_dense_is_the_formula(tensors, device, dtype, n, n_keys, causal):
    q, k, v = tensors(n, n_keys, dim=64, dtype=dtype, device=device)
    out, lse = lacuna.attention(q, k, v, causal=causal, return_lse=True)
    assert out.dtype == dtype and out.device == q.device and lse.dtype == torch.float32
    want, want_lse = plain.attention(*on_cpu((q, k, v)), plain.visible(n, n_keys, causal))
    close(out, want, TOLERANCE[dtype])
    both_lse(lse, want_lse, 2e-2)


@pytest.mark.parametrize("dim, value_dim", [(128, 128), (64, 128), (40, 72), (33, 7)])
def test_any_head_dim(tensors, device, dim, value_dim):
    """Those that no fast kernel was compiled for take the plain one."""
    q, k, v = tensors(140, dim=dim, value_dim=value_dim, dtype=torch.bfloat16, device=device, grad=True)
    out = lacuna.attention(q, k, v, scale=0.2)
    twins = on_cpu((q, k, v), grad=True)
    want = plain.attention(*twins, plain.visible(140, 140), scale=0.2)[0]
    close(out, want, 4e-2)
    weight = torch.randn(out.shape)
    (out * weight.to(out)).sum().backward()
    (want * weight.bfloat16().double()).sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad, theirs.grad, 0.1)


@pytest.mark.parametrize("method", [WINDOW, "powerattention:block=16:window=32:sink=16", "trianglemix:layer_start=0:sink=4:window=50:last_rows=60"])
@pytest.mark.parametrize("n, n_keys", [(300, 300), (130, 400), (1, 400)])
def test_methods_of_closed_form(tensors, device, method, n, n_keys):
    q, k, v = tensors(n, n_keys, dim=64, dtype=torch.bfloat16, device=device, grad=True)
    out, lse = lacuna.attention(q, k, v, method, return_lse=True)
    twins = on_cpu((q, k, v), grad=True)
    want, want_lse = lacuna.attention(*twins, method, return_lse=True)
    close(out, want, 4e-2)
    close(lse, want_lse, 2e-2)
    weight, weight_lse = torch.randn(out.shape), torch.randn(lse.shape)
    ((out * weight.to(out)).sum() + (lse * weight_lse.to(lse)).sum()).backward()
    ((want * weight.bfloat16().float()).sum() + (want_lse * weight_lse).sum()).backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad, theirs.grad, 0.1)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, n_keys", [(300, 300), (260, 520)])
def test_plans(tensors, device, name, dtype, n, n_keys):
    q, k, v = tensors(n, n_keys, dim=128, dtype=dtype, device=device, grad=True)
    twins = on_cpu((q, k, v), grad=True)
    plan = PLANS[name](*twins[:2])
    out, lse = lacuna.attend(q, k, v, plan, return_lse=True)
    want, want_lse = lacuna.attend(*twins, plan, return_lse=True)
    close(out, want, TOLERANCE[dtype])
    both_lse(lse.detach(), want_lse.detach(), 2e-2)
    weight = torch.randn(out.shape)
    (out * weight.to(out)).sum().backward()
    (want * weight.to(dtype).float()).sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad, theirs.grad, 0.1)


@pytest.mark.parametrize("n", [1, 3, 16])
@pytest.mark.parametrize("lists", [1, 2, 4])
@pytest.mark.parametrize("block_k", [1, 16, 64])
def test_plans_of_few_rows(tensors, device, n, lists, block_k):
    """One list, one per KV head (the decode kernel's layouts) and one per query head, of tokens and of pages."""
    q, k, v = tensors(n, 500, dim=128, dtype=torch.bfloat16, device=device, grad=True)
    blocks = -(-500 // block_k)
    chosen = torch.stack([torch.randperm(blocks)[:max(1, blocks // 4)] for _ in range(lists)])
    plan = lacuna.Plan.from_topk(chosen[None, :, None].expand(1, lists, 1, -1), n_rows=n, n_keys=500, block_q=n, block_k=block_k, causal=True)
    twins = on_cpu((q, k, v), grad=True)
    out, lse = lacuna.attend(q, k, v, plan, return_lse=True)
    want, want_lse = lacuna.attend(*twins, plan, return_lse=True)
    close(out, want, 4e-2)
    both_lse(lse.detach(), want_lse.detach(), 2e-2)
    out.float().sum().backward()
    want.sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad, theirs.grad, 0.1)


def test_a_page_table(tensors, device):
    q = torch.randn(2, 4, 1, 64).to(device, torch.bfloat16)
    pages = torch.randn(2, 12, 16, 2, 64).to(device, torch.bfloat16)
    k, v = (x.flatten(0, 1).transpose(0, 1)[None].expand(2, -1, -1, -1) for x in pages)
    plan = lacuna.Plan.from_page_table([0, 3, 7], [5, 0, 9, 2, 11, 7, 1], [16, 4], page_size=16, n_pages=12)
    close(lacuna.attend(q, k, v, plan), lacuna.attend(*on_cpu((q, k, v)), plan), 4e-2)


def test_any_strides(tensors, device):
    q, k, v = tensors(90, dim=64, dtype=torch.bfloat16, device=device)
    want = lacuna.attention(q, k, v)
    token_major = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*token_major), want)
    every_second = [torch.stack([x, torch.zeros_like(x)], 4).flatten(3)[..., ::2] for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*every_second), want)
    shifted = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape) for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*shifted), want)
    shared = [x[:1].expand(3, -1, -1, -1) for x in (q, k, v)]
    assert torch.equal(lacuna.attention(*shared)[2], want[0])
    one_head = [q, k[:, :1].expand(-1, 2, -1, -1), v[:, :1].expand(-1, 2, -1, -1)]
    close(lacuna.attention(*one_head), lacuna.attention(q, k[:, :1], v[:, :1]), 2e-2)
    both = torch.cat([k, v], 3).requires_grad_()
    lacuna.attention(q, both[..., :64], both[..., 64:]).sum().backward()
    twins = [x.clone().requires_grad_() for x in (k, v)]
    lacuna.attention(q, *twins).sum().backward()
    assert torch.equal(both.grad, torch.cat([t.grad for t in twins], 3))


@pytest.mark.parametrize("shape", [dict(batch=0), dict(n=0), dict(n=0, n_keys=10), dict(n=5, n_keys=0), dict(n=1), dict(n=50, n_keys=20)])
@pytest.mark.parametrize("method", ["dense", WINDOW])
def test_small_and_empty_calls(tensors, device, shape, method):
    q, k, v = tensors(**{"n": 9, **shape}, dim=64, dtype=torch.bfloat16, device=device, grad=True)
    out, lse = lacuna.attention(q, k, v, method, return_lse=True)
    want, want_lse = plain.attention(*on_cpu((q, k, v)), plain.visible(q.shape[2], k.shape[2]))
    close(out, want, 4e-2)
    both_lse(lse.detach(), want_lse, 2e-2)
    out.sum().backward()
    assert all(x.grad is not None and not x.grad.isnan().any() for x in (q, k, v))
    if k.shape[2] == 0 or q.shape[2] == 0:
        assert not q.grad.any() and not k.grad.any()


def block(q, k, v, method):
    return lacuna.attention(torch.sin(q), k * 2, v, method, causal=True).relu()


@pytest.mark.parametrize("method", ["dense", WINDOW])
@pytest.mark.parametrize("n", [1, 150])
def test_compile_without_graph_breaks(tensors, device, method, n):
    q, k, v = tensors(n, 150, dim=64, dtype=torch.bfloat16, device=device, grad=True)
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    out, want = compiled(q, k, v, method), block(*twins, method)
    torch.testing.assert_close(out, want)
    out.square().sum().backward()
    want.square().sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_compile_a_plan(tensors, device):
    q, k, v = tensors(150, dim=64, dtype=torch.bfloat16, device=device, grad=True)
    plan = PLANS["blocks"](*on_cpu((q, k))).to(device)

    def attend(q, k, v):
        return lacuna.attend(torch.sin(q), k, v, plan) * 2

    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, want = torch.compile(attend, fullgraph=True, backend="aot_eager")(q, k, v), attend(*twins)
    torch.testing.assert_close(out, want)
    out.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(k.grad, twins[1].grad)


def test_inductor(tensors, device):
    q, k, v = tensors(80, dim=64, dtype=torch.bfloat16, device=device)
    torch.testing.assert_close(torch.compile(block, fullgraph=True)(q, k, v, WINDOW), block(q, k, v, WINDOW), atol=2e-2, rtol=2e-2)


def test_plans_that_do_not_fit(tensors, device):
    q, k, v = tensors(64, dim=64, dtype=torch.bfloat16, device=device)
    plan = lacuna.Plan.from_map(torch.ones(1, 3, 1, 1), n_rows=64, n_keys=64)
    with pytest.raises(ValueError, match="lists"):
        lacuna.attend(q, k, v, plan)
    with pytest.raises(ValueError, match="64 rows x 64 keys, the call has 32 x 64"):
        lacuna.attend(q[:, :, :32], k, v, plan)
    with pytest.raises(ValueError, match="of 3 sequences, the batch has 2"):
        lacuna.attend(q, k, v, lacuna.Plan.from_map(torch.eye(3)[:, None, None, :1], n_rows=64, n_keys=64))
    words = plan.words.clone()
    words[-1] = 7
    with pytest.raises(ValueError, match="key block 7"):
        lacuna.attend(q, k, v, lacuna.Plan(words, 64, 64))
    with pytest.raises(ValueError, match="no plan, or were cut"):
        lacuna.attend(q, k, v, lacuna.Plan(words[:4], 64, 64))
