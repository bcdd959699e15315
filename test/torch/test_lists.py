# SPDX-License-Identifier: Apache-2.0
"""The lists that CUDA devices get, read back on the CPU and held against what the CPU attends to with the same plan; and what
is refused before a device is asked. No GPU is needed."""
import lacuna
import plain
import pytest
import torch
from lacuna import _check, _cuda, _lists
from test_devices import PLANS, WINDOW
from torch._subclasses.fake_tensor import FakeTensorMode


def kept(lists, rows, keys, causal):
    """bool [batches, lists, rows, keys]: what a kernel that walks the blocks sees."""
    row_ptr = lists.row_ptr
    blocks, columns = row_ptr.shape[2] - 1, -(-keys // lists.block_k)
    seen = torch.zeros(*row_ptr.shape[:2], blocks * lists.block_q, columns * lists.block_k, dtype=torch.bool)
    lanes = torch.arange(32, dtype=torch.int64)
    for b in range(row_ptr.shape[0]):
        for h in range(row_ptr.shape[1]):
            for u in range(blocks):
                for e in range(row_ptr[b, h, u], row_ptr[b, h, u + 1]):
                    c, mask = int(lists.columns[e]), -1 if lists.bits is None else int(lists.bits[e])
                    part = torch.ones(lists.block_q, lists.block_k, dtype=torch.bool)
                    if mask >= 0:
                        part = (lists.words[mask].long()[..., None] >> lanes & 1).bool().flatten(1)
                    seen[b, h, u * lists.block_q:(u + 1) * lists.block_q, c * lists.block_k:(c + 1) * lists.block_k] = part
    return seen[..., :rows, :keys] & plain.visible(rows, keys, causal)


def kept_pages(lists, rows, keys, causal):
    cells = torch.arange(keys) // lists.cells
    out = [torch.isin(cells, pages[:count]) for pages, count in zip(lists.pages.flatten(0, 1), lists.counts.flatten())]
    return torch.stack(out).view(*lists.counts.shape, 1, keys) & plain.visible(rows, keys, causal)


def same_as_cpu(q, k, v, plan, seen):
    heads = seen.repeat_interleave(q.shape[1] // seen.shape[1], 1)
    got, got_lse = lacuna.attend(q, k, v, plan, return_lse=True)
    want, want_lse = plain.attention(q, k, v, heads)
    assert torch.equal(got_lse.isinf(), want_lse.isinf())
    assert (got - want).abs().max() < 1e-4
    assert (got_lse - want_lse).nan_to_num(0, 0, 0).abs().max() < 1e-4


@pytest.mark.parametrize("name", [name for name in PLANS if name != "everything"])
@pytest.mark.parametrize("n, n_keys", [(300, 300), (260, 520), (1, 300), (16, 330)])
def test_lists_are_the_plan(tensors, name, n, n_keys):
    q, k, v = tensors(n, n_keys)
    plan = PLANS[name](q, k)
    lists = _lists.make(plan.words, plan.mask, n, n_keys, plan.causal, "cpu")
    if lists.dense:
        assert n <= 16  # methods leave less out of few rows
        return
    causal = plan.causal and plan.mask is None
    same_as_cpu(q, k, v, plan, kept(lists, n, n_keys, causal))
    if lists.counts is not None:
        same_as_cpu(q, k, v, plan, kept_pages(lists, n, n_keys, causal))


def test_everything_needs_no_lists(tensors):
    q, k, _ = tensors(100)
    for plan in (PLANS["everything"](q, k), lacuna.plan(q, k, method="streamingllm:window=1000")):
        assert _lists.make(plan.words, plan.mask, 100, 100, plan.causal, "cpu").dense


@pytest.mark.parametrize("block", [64, 128])
def test_a_map_stays_as_it_is(block):
    """Blocks of 64 and 128 are the kernels' own: no masks, nothing added."""
    kept_blocks = torch.rand(2, 2, 5, 5) < 0.4
    plan = lacuna.Plan.from_map(kept_blocks, n_rows=5 * block, n_keys=5 * block, block_q=block, block_k=block, causal=False)
    lists = _lists.make(plan.words, None, 5 * block, 5 * block, False, "cpu")
    assert (lists.block_q, lists.block_k, lists.bits) == (block, block, None)
    assert lists.columns.numel() == kept_blocks.sum()


def test_shapes_give_what_methods_plan(tensors):
    q, k, v = tensors(300, 400, batch=1)
    options = f"precision=fast windowed=sparse {WINDOW}"
    words = torch.frombuffer(bytearray(_cuda.words_of_shape(options, 0, 4, 2, 300, 400, 32, True)), dtype=torch.int32)
    assert torch.equal(words, lacuna.plan(q, k, v, WINDOW).words)
    with pytest.raises(ValueError, match="sink"):
        _cuda.words_of_shape("streamingllm:sink=-1", 0, 4, 2, 300, 400, 32, True)
    with pytest.raises(RuntimeError, match=r"xattention looks at keys.*lacuna\.plan\(q, k, v, method\).*lacuna\.attend"):
        _cuda.words_of_shape("xattention:stride=8", 0, 4, 2, 300, 400, 32, True)


def test_plans_that_have_no_lists(tensors):
    q, k, _ = tensors(100)
    mask = plain.visible(100, 100)
    mask[60:, :60] = False  # two sequences
    plan = lacuna.plan(q, k, method="streamingllm:sink=1:window=20", mask=mask)
    with pytest.raises(RuntimeError, match="under a mask.*plan without the mask"):
        _lists.make(plan.words, plan.mask, 100, 100, plan.causal, "cpu")


def test_words_are_checked(tensors):
    plan = lacuna.Plan.from_map(torch.ones(1, 1, 2, 2), n_rows=200, n_keys=100)
    words = plan.words.clone()
    words[-1] = 2
    with pytest.raises(ValueError, match="key block 2, need 0..1"):
        _lists.make(words, None, 200, 100, True, "cpu")
    with pytest.raises(ValueError, match="rows"):
        _lists.make(plan.words, None, 100, 100, True, "cpu")


def test_refusals_on_a_device(tensors):
    """Looked at before anything runs: fake tensors of a device that is not there will do."""
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 4, 8, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        for error, words, call in (
                (TypeError, r"q is float32 on cuda.*\.bfloat16\(\)", lambda: lacuna.attention(q.float(), k.float(), v.float())),
                (ValueError, "q is on cuda:0, k on cpu, v on cuda:0", lambda: lacuna.attention(q, torch.empty(2, 4, 8, 64, dtype=q.dtype), v)),
                (ValueError, "head_dim 320 on cuda:0, need 1..256", lambda: lacuna.attention(*(torch.cat([x] * 5, 3) for x in (q, k, v)))),
                (ValueError, "mask: .*from_block_mask", lambda: lacuna.attention(q, k, v, mask=torch.ones(8, 8, dtype=torch.bool, device="cuda"))),
                (ValueError, "sinks: the CUDA kernels have none", lambda: lacuna.attention(q, k, v, sinks=torch.zeros(4, device="cuda"))),
                (ValueError, "softcap: the CUDA kernels have none", lambda: lacuna.attention(q, k, v, softcap=2.0)),
                (ValueError, "scale: got -1.0 on cuda:0", lambda: lacuna.attention(q, k, v, scale=-1.0)),
                (ValueError, "precision: got 'high' on cuda:0", lambda: lacuna.attention(q, k, v, precision="high")),
                (ValueError, "a Session counts .* on the CPU only", lambda: lacuna.attention(q, k, v, lacuna.Session("dense")))):
            with pytest.raises(error, match=words):
                call()
        out, lse = lacuna.attention(q, k, v, WINDOW, return_lse=True)
        assert (out.shape, out.dtype, out.device.type, lse.shape, lse.dtype) == (q.shape, q.dtype, "cuda", (2, 4, 8), torch.float32)


def test_devices_that_are_not_there():
    class On(torch.Tensor):
        device = torch.device("xpu:0")

    with pytest.raises(ValueError, match=r"q is on xpu:0: lacuna works on the CPU and on CUDA devices; call \.cpu\(\)"):
        _check.tensor("q", torch.zeros(1).as_subclass(On))


def test_a_package_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(_cuda, "NAME", "_lacuna_none.so")
    _cuda.library.cache_clear()
    with pytest.raises(RuntimeError, match="built without CUDA.*LACUNA_CUDA=ON"):
        _cuda.library()
    _cuda.library.cache_clear()


def test_block_lists_must_lie_on_a_device():
    with pytest.raises(TypeError, match=r"row_ptr: got torch.int32 on cpu, need an int32 tensor on a CUDA device; Plan.from_bsr"):
        lacuna.Plan.from_block_lists(torch.zeros(1, 1, 2, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), n_rows=64, n_keys=64)
    with pytest.raises(ValueError, match="block_q: got 32, need 64 or 128"):
        lacuna.Plan.from_block_lists(None, None, n_rows=64, n_keys=64, block_q=32)
    with pytest.raises(ValueError, match="device: got xpu"):
        lacuna.Plan.from_map(torch.ones(1, 1, 1, 1), n_rows=1, n_keys=1).to("xpu")
