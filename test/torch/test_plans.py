# SPDX-License-Identifier: Apache-2.0
"""Plans: made, handed back, differentiated, and imported from the lists of other libraries."""
import lacuna
import plain
import pytest
import torch
from lacuna import Plan
from test_attention import WINDOW, close
from test_refusals import refuses
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def elements(blocks, block_q, block_k, n, n_keys):
    """A map of blocks as one of elements."""
    return blocks.bool().repeat_interleave(block_q, 2)[:, :, :n].repeat_interleave(block_k, 3)[..., :n_keys]


@pytest.mark.parametrize("method", ["dense", WINDOW, "xattention:stride=8:block=64:mass=0.5", "minference:vertical=30:slash=10:last_rows=16"])
def test_a_plan_does_what_its_method_does(tensors, method):
    q, k, v = tensors(400, grad=True)
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    plan = lacuna.plan(q, k, v, method)
    assert plan.words.dtype == torch.int32 and method in repr(plan)
    out, want = lacuna.attend(q, k, v, plan), lacuna.attention(*twins, method)
    assert torch.equal(out, want)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (want * weight).sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        assert torch.equal(mine.grad, theirs.grad)


def test_a_plan_outlives_its_tensors(tensors, tmp_path):
    """A plan is a constant: other values, the same keys. It can be written and read."""
    q, k, v = tensors(300)
    torch.save(lacuna.plan(q, k, v, WINDOW).words, tmp_path / "plan.pt")
    plan = Plan(torch.load(tmp_path / "plan.pt"), 300, 300)
    q, k, v = tensors(300)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, plain.window(300, 300, 4, 50))[0], 1e-4)


def test_a_plan_in_a_compiled_function(tensors):
    q, k, v = tensors(200, grad=True)
    plan = lacuna.plan(q, k, v, WINDOW)
    compiled = torch.compile(lambda q, k, v, plan: lacuna.attend(q * 2, k, v, plan).cos(), fullgraph=True, backend="aot_eager")
    out = compiled(q, k, v, plan)
    torch.testing.assert_close(out, lacuna.attend(q * 2, k, v, plan).cos())
    out.sum().backward()
    assert q.grad.abs().sum() > 0


def test_opcheck_with_a_plan(tensors):
    q, k, v = tensors(130, grad=True)
    words = lacuna.plan(q, k, v, WINDOW).words
    arguments = (q, k, v, None, None, words, "precision=high dense", 0, True, 0.2, 0.0, 0)
    torch.library.opcheck(torch.ops.lacuna.attention.default, arguments, rtol=1e-3, atol=1e-3)


def causal(b, h, i, j):
    return i >= j


def documents(b, h, i, j):
    return (i >= j) & (i // 100 == j // 100)


def window_and_bands(b, h, i, j):
    return (i >= j) & ((i - j < 70) | (j % 128 < 64))


def both_ways(b, h, i, j):
    return (i - j).abs() < 90


def heads_differ_by_blocks(b, h, i, j):
    return (i >= j) & ((h % 2 == 0) | (j // 128 == i // 128))


@pytest.mark.parametrize("mask_mod", [causal, documents, window_and_bands, both_ways, heads_differ_by_blocks])
def test_flex_attention(tensors, mask_mod):
    q, k, v = tensors(384)
    heads = 4 if mask_mod is heads_differ_by_blocks else None
    block_mask = create_block_mask(mask_mod, None, heads, 384, 384, device="cpu")
    plan = Plan.from_block_mask(block_mask)
    assert plan.causal == (mask_mod in (causal, heads_differ_by_blocks))
    out = lacuna.attend(q, k, v, plan)
    torch.testing.assert_close(out, flex_attention(q, k, v, block_mask=block_mask, enable_gqa=True), atol=1e-4, rtol=1e-4)


def test_flex_attention_of_odd_sizes_and_gradients(tensors):
    q, k, v = tensors(200, 333, grad=True)
    block_mask = create_block_mask(both_ways, None, None, 200, 333, device="cpu")
    twins = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    lacuna.attend(q, k, v, Plan.from_block_mask(block_mask)).square().sum().backward()
    row, key = torch.arange(200)[:, None], torch.arange(333)[None]
    plain.attention(*twins, both_ways(0, 0, row, key))[0].square().sum().backward()
    for mine, theirs in zip((q, k, v), twins):
        close(mine.grad, theirs.grad.double(), 1e-3)


def test_flex_attention_whose_heads_disagree_is_refused():
    block_mask = create_block_mask(lambda b, h, i, j: i - j > h, None, 4, 256, 256, device="cpu")
    with refuses(ValueError, "heads differ in what row", "one plan per head"):
        Plan.from_block_mask(block_mask)


def test_fa4(tensors):
    q, k, v = tensors(256)
    kept = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0]]).view(1, 1, 2, 4)  # blocks of 128 x 64
    whole = torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0]]).view(1, 1, 2, 4)
    count, index = torch.tensor([[[1, 2]]]), torch.tensor([[[[0, 3, 3, 3], [3, 1, 0, 0]]]])
    plan = Plan.from_fa4(count, index, torch.tensor([[[0, 1]]]), torch.tensor([[[[9, 9, 9, 9], [0, 9, 9, 9]]]]), n_rows=256, n_keys=256,
                         block_q=128, block_k=64)
    assert plan.causal and plan.mask is None
    kept[0, 0, 1, 3] = 1
    seen = elements(kept + whole, 128, 64, 256, 256) & plain.visible(256, 256)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, seen)[0], 1e-4)
    strict = Plan.from_fa4(count, index, torch.tensor([[[0, 1]]]), torch.tensor([[[[9, 9, 9, 9], [0, 9, 9, 9]]]]), n_rows=256, n_keys=256,
                           block_q=128, block_k=64, mask_mod=lambda b, h, row, key: (key > 64) & (key <= row))
    row, key = torch.arange(256)[:, None], torch.arange(256)[None]
    in_full = elements(whole, 128, 64, 256, 256)  # counts whole, whatever mask_mod says
    seen = in_full | (elements(kept, 128, 64, 256, 256) & (key > 64) & (key <= row))
    close(lacuna.attend(q, k, v, strict), plain.attention(q, k, v, seen)[0], 1e-4)
    with refuses(ValueError, r"mask_block indices\[0, 0, 1, 1\]: got 4, need 0..3"):
        Plan.from_fa4(count, index.masked_fill(index == 1, 4), n_rows=256, n_keys=256, block_k=64)
    with refuses(ValueError, "a block stands there twice"):
        Plan.from_fa4(torch.tensor([[[1, 2]]]), torch.zeros_like(index), n_rows=256, n_keys=256, block_k=64)


def test_bsr(tensors):
    q, k, v = tensors(200, 150)
    indptr, indices = torch.tensor([0, 2, 2, 3, 5]), torch.tensor([4, 0, 2, 1, 3])
    kept = torch.zeros(1, 1, 4, 5)
    for row, block in ((0, 4), (0, 0), (2, 2), (3, 1), (3, 3)):
        kept[0, 0, row, block] = 1
    plan = Plan.from_bsr(indptr, indices, n_rows=200, n_keys=150, block_q=64, block_k=32)
    out, lse = lacuna.attend(q, k, v, plan, return_lse=True)
    close(out, plain.attention(q, k, v, elements(kept, 64, 32, 200, 150))[0], 1e-4)
    assert not out[:, :, 64:128].any() and lse[:, :, 64:128].isinf().all()  # a row block without blocks
    per_head = Plan.from_bsr(torch.stack([indptr, torch.tensor([0, 1, 2, 3, 4])]), [indices, torch.tensor([0, 1, 2, 3])], n_rows=200,
                             n_keys=150, block_q=64, block_k=32)
    kept = torch.cat([kept, torch.eye(5)[:4].view(1, 1, 4, 5)], 1).repeat_interleave(2, 1)  # one list per KV head
    close(lacuna.attend(q, k, v, per_head), plain.attention(q, k, v, elements(kept, 64, 32, 200, 150))[0], 1e-4)
    with refuses(ValueError, r"indices\[1\]: got -1, need 0..4"):
        Plan.from_bsr(indptr, torch.tensor([4, -1, 2, 1, 3]), n_rows=200, n_keys=150, block_q=64, block_k=32)
    with refuses(ValueError, "indptr", "never less than before"):
        Plan.from_bsr(torch.tensor([0, 3, 2, 3, 5]), indices, n_rows=200, n_keys=150, block_q=64, block_k=32)


def test_page_table():
    pages_k, pages_v = torch.randn(10, 16, 2, 32), torch.randn(10, 16, 2, 32)
    indptr, indices, last = torch.tensor([0, 3, 4, 4]), torch.tensor([7, 2, 3, 9]), torch.tensor([5, 16, 0])
    plan = Plan.from_page_table(indptr, indices, last, page_size=16, n_pages=10)
    q = torch.randn(3, 4, 1, 32)
    k, v = (x.flatten(0, 1).transpose(0, 1)[None].expand(3, -1, -1, -1) for x in (pages_k, pages_v))
    out = lacuna.attend(q, k, v, plan)
    for b, (own, n) in enumerate([([7, 2, 3], 37), ([9], 16)]):
        cells = torch.cat([torch.arange(16) + 16 * page for page in own])[:n]
        want = plain.attention(q[b:b + 1], k[:1, :, cells], v[:1, :, cells], torch.ones(1, n, dtype=torch.bool))[0]
        close(out[b:b + 1], want, 1e-4)
    assert not out[2].any()  # no pages
    with refuses(ValueError, r"kv_indices\[3\]: got 10, need 0..9"):
        Plan.from_page_table(indptr, torch.tensor([7, 2, 3, 10]), last, page_size=16, n_pages=10)
    with refuses(ValueError, r"kv_last_page_len\[1\]: got 17, need 0..16"):
        Plan.from_page_table(indptr, indices, torch.tensor([5, 17, 0]), page_size=16, n_pages=10)
    with refuses(ValueError, "a page stands in sequence 0 twice"):
        Plan.from_page_table(indptr, torch.tensor([7, 7, 3, 9]), last, page_size=16, n_pages=10)


@pytest.mark.parametrize("block_q, block_k, lists, is_causal", [(128, 64, (1, 1), True), (256, 64, (1, 4), False), (64, 48, (2, 2), True)])
def test_map(tensors, block_q, block_k, lists, is_causal):
    q, k, v = tensors(300)
    kept = (torch.rand(*lists, -(-300 // block_q), -(-300 // block_k)) < 0.5).int()
    plan = Plan.from_map(kept, n_rows=300, n_keys=300, block_q=block_q, block_k=block_k, causal=is_causal)
    seen = elements(kept.repeat_interleave(4 // lists[1], 1), block_q, block_k, 300, 300) & plain.visible(300, 300, is_causal)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, seen)[0], 1e-4)
    with refuses(ValueError, "map: got 2, need 0 and 1"):
        Plan.from_map(kept * 2, n_rows=300, n_keys=300, block_q=block_q, block_k=block_k)


def test_topk_tokens(tensors):
    q, k, v = tensors(120, batch=1)
    indices = torch.full((1, 4, 120, 20), -1)
    seen = torch.zeros(1, 4, 120, 120, dtype=torch.bool)
    for h in range(4):
        for i in range(120):
            best = torch.randperm(i + 1)[:20 - i % 3]
            indices[0, h, i, :len(best)] = best
            seen[0, h, i, best] = True
    plan = Plan.from_topk(indices, n_rows=120, n_keys=120)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, seen)[0], 1e-4)
    with refuses(ValueError, r"indices\[0, 0, 0, 0\]: got 120, need -1..119"):
        Plan.from_topk(torch.where(indices == 0, 120, indices), n_rows=120, n_keys=120)
    with refuses(ValueError, "-1 before a number"):
        Plan.from_topk(indices.flip(3), n_rows=120, n_keys=120)
    with refuses(ValueError, "a number twice"):
        Plan.from_topk(torch.zeros_like(indices), n_rows=120, n_keys=120)
    with refuses(TypeError, "indices: torch.float32, need whole numbers"):
        Plan.from_topk(indices.float(), n_rows=120, n_keys=120)


def test_topk_up_to_the_last_key(tensors):
    """Runs of neighbours, the last key among them, beside lists of other lengths."""
    q, k, v = tensors(4, 8, batch=1)
    lists = [[7, 5, 6, 0], [7, -1, -1, -1], [-1, -1, -1, -1], [0, 1, 2, 7]]
    seen = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    for row, listed in enumerate(lists):
        seen[0, 0, row, [x for x in listed if x >= 0]] = True
    plan = Plan.from_topk(torch.tensor(lists)[None, None], n_rows=4, n_keys=8, causal=False)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, seen)[0], 1e-4)


def test_topk_blocks(tensors):
    q, k, v = tensors(150, 200)
    indices = torch.tensor([[3, 0, -1], [6, -1, -1], [1, 2, 5]]).view(1, 1, 3, 3)
    kept = torch.zeros(1, 1, 3, 7)
    for row, listed in enumerate([[3, 0], [6], [1, 2, 5]]):
        kept[0, 0, row, listed] = 1
    plan = Plan.from_topk(indices, n_rows=150, n_keys=200, block_q=64, block_k=32, causal=False)
    close(lacuna.attend(q, k, v, plan), plain.attention(q, k, v, elements(kept, 64, 32, 150, 200))[0], 1e-4)


def test_what_does_not_fit(tensors):
    q, k, v = tensors(200)
    plan = lacuna.plan(q, k, v, WINDOW)
    with refuses(ValueError, "plan: for 200 rows x 200 keys, the call has 100 x 100"):
        lacuna.attend(*(x[:, :, :100] for x in (q, k, v)), plan)
    with refuses(ValueError, "plan: of 2 sequences, the batch has 3"):
        lacuna.attend(*(x[:1].expand(3, -1, -1, -1) for x in (q, k, v)), plan)
    with refuses(ValueError, "of 3 lists", "need 1, 2 or 4"):
        lacuna.attend(q, k, v, Plan.from_map(torch.ones(1, 3, 2, 4), n_rows=200, n_keys=200))
    with refuses(TypeError, "plan: got str"):
        lacuna.attend(q, k, v, "dense")
    with refuses(RuntimeError, "auto", "cannot be made apart"):
        lacuna.plan(q, k, v, "auto")


def test_words_from_elsewhere_are_checked_whole(tensors):
    """Whatever a word of a plan becomes: an exception, or a result without harm."""
    q, k, v = tensors(130, batch=1, heads=2, kv_heads=1, dim=16)
    plan = lacuna.plan(q, k, v, "xattention:stride=8:block=64:mass=0.5")
    refused = 0
    for at in range(plan.words.numel()):
        for value in (-1, 0, 7, 2**31 - 1, -2**31):
            words = plan.words.clone()
            words[at] = value
            try:
                lacuna.attend(q, k, v, Plan(words, 130, 130))
            except ValueError as e:
                refused += "plan" in str(e) or "block map" in str(e)
    assert refused > plan.words.numel()
    for words in (plan.words[:-1], plan.words[:2], plan.words.long(), torch.zeros(0, dtype=torch.int32)):
        with refuses(ValueError, "plan"):
            lacuna.attend(q, k, v, Plan(words, 130, 130))
