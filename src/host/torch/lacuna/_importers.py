# SPDX-License-Identifier: Apache-2.0
"""Block lists, page tables and token lists of other libraries as plans. Every list is checked here; nothing is clipped.

The functions are class methods of lacuna.Plan. Lists of one head serve all heads; else there is one per query head, or one
per KV head."""
import torch

from . import _cuda, _words
from ._lists import Lists


def _whole_numbers(name, x, dims, shape=None):
    if not isinstance(x, torch.Tensor):
        x = torch.as_tensor(x)
    if x.dtype.is_floating_point or x.dtype.is_complex or x.dtype == torch.bool:
        raise TypeError(f"{name}: {x.dtype}, need whole numbers")
    if x.dim() != dims or (shape and any(n is not None and n != m for n, m in zip(shape, x.shape))):
        need = f"{dims} dimensions" + (f", {['any' if n is None else n for n in shape]}" if shape else "")
        raise ValueError(f"{name}: shape {list(x.shape)}, need {need}")
    return x.cpu().long()


def _in_range(name, x, low, high):
    """low <= x < high everywhere."""
    bad = ((x < low) | (x >= high)).nonzero()
    if len(bad):
        at = bad[0].tolist()
        raise ValueError(f"{name}{at}: got {x[tuple(at)].item()}, need {low}..{high - 1}")


def _sizes(**sizes):
    for name, n in sizes.items():
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"{name}: got {n}, need a whole number, 1 or more")


def _blocks(n, size):
    return -(-n // size)


def _map_of_lists(name, counts, indices, blocks):
    """bool [B, H, row blocks, blocks] from the first counts[...] of indices[...]."""
    _in_range(f"{name} counts", counts, 0, indices.shape[3] + 1)
    listed = torch.arange(indices.shape[3]) < counts[..., None]
    _in_range(f"{name} indices", torch.where(listed, indices, 0), 0, blocks)
    kept = torch.zeros(*counts.shape, blocks + 1, dtype=torch.bool)
    kept.scatter_(3, torch.where(listed, indices, blocks), True)  # the last takes what is not listed
    kept = kept[..., :blocks]
    if not torch.equal(kept.sum(3), counts):
        at = (kept.sum(3) != counts).nonzero()[0].tolist()
        raise ValueError(f"{name} indices{at}: a block stands there twice")
    return kept


def _elements(blocks, block_q, block_k, rows, keys):
    """A map of blocks [row blocks, blocks] as one of elements [rows, keys]."""
    return blocks.repeat_interleave(block_q, 0)[:rows].repeat_interleave(block_k, 1)[:, :keys]


def _visible(partial, full, mask_mod, block_q, block_k, rows, keys):
    """What rows may see, as (causal, mask [B, rows, keys] or None): within full blocks everything, within partial ones what
    mask_mod says, elsewhere no matter."""
    batch, heads = partial.shape[:2]
    row, key = torch.arange(rows)[:, None], torch.arange(keys)[None]
    masks, causal, everything = [], rows <= keys, True
    for b in range(batch):
        one = torch.ones(rows, keys, dtype=torch.bool)
        said = torch.zeros(rows, keys, dtype=torch.bool)  # for which elements some head has said what it is
        for h in range(heads):
            part = _elements(partial[b, h], block_q, block_k, rows, keys)
            kept = part | _elements(full[b, h], block_q, block_k, rows, keys)
            allowed = mask_mod(torch.tensor(b), torch.tensor(h), row, key).expand(rows, keys)
            allowed = allowed | ~part
            if (said & kept & (one != allowed)).any():
                i, j = (said & kept & (one != allowed)).nonzero()[0].tolist()
                raise ValueError(f"heads differ in what row {i} sees of key {j} in a block that both keep: a plan has one mask for all "
                                 "heads; make one plan per head, and call attend for each")
            one = torch.where(kept, allowed, one)
            said |= kept
        below = key <= row + keys - rows
        causal = causal and not (said & (one != below)).any()
        everything = everything and bool((one | ~said).all())
        masks.append(one)
    if everything:
        return False, None
    return (True, None) if causal else (False, torch.stack(masks))


def _plan(cls, kept, block_q, block_k, rows, keys, causal, mask, source):
    words = torch.cat([_words.of_blocks(one, block_q, block_k, rows, keys) for one in kept])
    return cls(words, rows, keys, causal, mask, source)


def _two_kinds(cls, partial, full, mask_mod, block_q, block_k, rows, keys, source):
    causal, mask = _visible(partial, full, mask_mod, block_q, block_k, rows, keys)
    return _plan(cls, partial | full, block_q, block_k, rows, keys, causal, mask, source)


def from_block_mask(cls, block_mask):
    """A plan from torch.nn.attention.flex_attention.BlockMask, its mask_mod included: within partial blocks it says which
    elements count, so all heads must agree there (ValueError where they do not). Lists: of 1 or Hq heads. Memory: a bool for
    every row and key."""
    block_q, block_k = block_mask.BLOCK_SIZE
    rows, keys = block_mask.seq_lengths
    q_blocks, k_blocks = _blocks(rows, block_q), _blocks(keys, block_k)

    def lists(counts, indices):
        if counts is None:
            return None
        counts = _whole_numbers("kv_num_blocks", counts, 3, (None, None, q_blocks))
        return _map_of_lists("kv", counts, _whole_numbers("kv_indices", indices, 4, (*counts.shape, None)), k_blocks)

    partial = lists(block_mask.kv_num_blocks, block_mask.kv_indices)
    full = lists(block_mask.full_kv_num_blocks, block_mask.full_kv_indices)
    full = torch.zeros_like(partial) if full is None else full
    return _two_kinds(cls, partial, full, block_mask.mask_mod, block_q, block_k, rows, keys, "BlockMask")


def from_fa4(cls, mask_block_cnt, mask_block_idx, full_block_cnt=None, full_block_idx=None, *, n_rows, n_keys, block_q=128, block_k=128,
             mask_mod=None):
    """A plan from FlashAttention-4's block lists: counts [B or 1, H or 1, ceil(n_rows / block_q)] and indices
    [..., blocks] of the blocks in which mask_mod(b, h, row, key) says which elements count, and of those that count whole.
    Without mask_mod: causal, the last row aligned with the last key."""
    _sizes(n_rows=n_rows, n_keys=n_keys, block_q=block_q, block_k=block_k)
    shape = (None, None, _blocks(n_rows, block_q))

    def lists(name, counts, indices):
        counts = _whole_numbers(f"{name}_block_cnt", counts, 3, shape)
        return _map_of_lists(f"{name}_block", counts, _whole_numbers(f"{name}_block_idx", indices, 4, (*counts.shape, None)),
                             _blocks(n_keys, block_k))

    partial = lists("mask", mask_block_cnt, mask_block_idx)
    full = torch.zeros_like(partial) if full_block_cnt is None else lists("full", full_block_cnt, full_block_idx)
    if full.shape != partial.shape:
        raise ValueError(f"full blocks are of {list(full.shape[:2])} sequences and heads, masked ones of {list(partial.shape[:2])}: need the same")
    if mask_mod is None:
        def mask_mod(b, h, row, key):
            return key <= row + n_keys - n_rows
    return _two_kinds(cls, partial, full, mask_mod, block_q, block_k, n_rows, n_keys, "FA4")


def from_bsr(cls, indptr, indices, *, n_rows, n_keys, block_q, block_k, causal=False):
    """A plan from FlashInfer's block sparse rows: indptr [ceil(n_rows / block_q) + 1] and the indices of key blocks, row
    block after row block, for all heads; or with a first dimension for heads: indptr [H, ...] and a list of H index tensors."""
    _sizes(n_rows=n_rows, n_keys=n_keys, block_q=block_q, block_k=block_k)
    q_blocks, k_blocks = _blocks(n_rows, block_q), _blocks(n_keys, block_k)
    indptr = torch.as_tensor(indptr)
    per_head = list(zip(indptr, indices)) if indptr.dim() == 2 else [(indptr, indices)]
    if indptr.dim() == 2 and len(indices) != len(indptr):
        raise ValueError(f"indptr is of {len(indptr)} heads, indices of {len(indices)}: need the same")
    kept = torch.zeros(1, len(per_head), q_blocks, k_blocks, dtype=torch.bool)
    for h, (pointers, listed) in enumerate(per_head):
        pointers = _whole_numbers("indptr", pointers, 1, (q_blocks + 1,))
        listed = _whole_numbers("indices", listed, 1)
        counts = pointers.diff()
        if pointers[0] != 0 or pointers[-1] != len(listed) or (counts < 0).any():
            raise ValueError(f"indptr: {pointers.tolist()[:8]}..., need 0 at first, never less than before, {len(listed)} at last")
        _in_range("indices", listed, 0, k_blocks)
        kept[0, h, torch.repeat_interleave(torch.arange(q_blocks), counts), listed] = True
        if kept[0, h].sum() != len(listed):
            raise ValueError("indices: a block stands in a row twice")
    return _plan(cls, kept, block_q, block_k, n_rows, n_keys, causal, None, "BSR")


def from_page_table(cls, kv_indptr, kv_indices, kv_last_page_len, *, page_size, n_pages, n_rows=1):
    """A plan from FlashInfer's page table: sequence b's keys lie in pages kv_indices[kv_indptr[b]:kv_indptr[b + 1]], all of
    them full but the last, which has kv_last_page_len[b] keys. For k of [B, Hkv, n_pages * page_size, D] that is the pool of
    pages, expanded over the batch:

        k = pages.flatten(0, 1).transpose(0, 1)[None].expand(B, -1, -1, -1)      # pages [n_pages, page_size, Hkv, D]

    Each of the n_rows rows sees all keys of its sequence, as a decoded token does."""
    _sizes(page_size=page_size, n_pages=n_pages, n_rows=n_rows)
    pointers = _whole_numbers("kv_indptr", kv_indptr, 1)
    pages = _whole_numbers("kv_indices", kv_indices, 1)
    batch = len(pointers) - 1
    last = _whole_numbers("kv_last_page_len", kv_last_page_len, 1, (batch,))
    if batch < 1 or pointers[0] != 0 or pointers[-1] > len(pages) or (pointers.diff() < 0).any():
        raise ValueError(f"kv_indptr: {pointers.tolist()[:8]}..., need 0 at first, never less than before, at most {len(pages)} at last")
    _in_range("kv_indices", pages[:pointers[-1]], 0, n_pages)
    _in_range("kv_last_page_len", last, 0, page_size + 1)
    keys, parts = n_pages * page_size, []
    for b in range(batch):
        own = pages[pointers[b]:pointers[b + 1]]
        if len(own.unique()) != len(own):
            raise ValueError(f"kv_indices: a page stands in sequence {b} twice")
        cells = (own[:, None] * page_size + torch.arange(page_size)).flatten()
        cells = cells[:max(len(cells) - page_size + int(last[b]), 0)].sort().values
        parts.append(_words.of_indices(cells.expand(1, _blocks(n_rows, 64), -1), 64, n_rows, keys))
    return cls(torch.cat(parts), n_rows, keys, False, None, "page table")


def from_map(cls, kept, *, n_rows, n_keys, block_q=128, block_k=64, causal=True):
    """A plan from a 0/1 map of blocks, as SpargeAttn takes it (mask_id): [B or 1, H or 1, ceil(n_rows / block_q),
    ceil(n_keys / block_k)], numbers or bool."""
    _sizes(n_rows=n_rows, n_keys=n_keys, block_q=block_q, block_k=block_k)
    kept = torch.as_tensor(kept).cpu()
    shape = [_blocks(n_rows, block_q), _blocks(n_keys, block_k)]
    if kept.dim() != 4 or list(kept.shape[2:]) != shape:
        raise ValueError(f"map: shape {list(kept.shape)}, need [batch, heads, {shape[0]}, {shape[1]}]")
    if ((kept != 0) & (kept != 1)).any():
        raise ValueError(f"map: got {kept[(kept != 0) & (kept != 1)][0].item()}, need 0 and 1")
    return _plan(cls, kept.bool(), block_q, block_k, n_rows, n_keys, causal, None, "map")


def from_topk(cls, indices, *, n_rows, n_keys, block_q=1, block_k=1, causal=True):
    """A plan from lists of the best keys, or key blocks of block_k, for every row, or row block of block_q:
    [B or 1, H or 1, ceil(n_rows / block_q), K], in any order, shorter lists padded with -1 at their ends."""
    _sizes(n_rows=n_rows, n_keys=n_keys, block_q=block_q, block_k=block_k)
    if block_q > _words.MOST_ROWS:
        raise ValueError(f"block_q: got {block_q}, need 1..{_words.MOST_ROWS}")
    blocks = _blocks(n_keys, block_k)
    indices = _whole_numbers("indices", indices, 4, (None, None, _blocks(n_rows, block_q), None))
    _in_range("indices", indices, -1, blocks)
    if ((indices[..., :-1] < 0) & (indices[..., 1:] >= 0)).any():
        raise ValueError("indices: -1 before a number: need padding at the end of a list only")
    ordered = torch.where(indices < 0, blocks, indices).sort(3).values
    if ((ordered[..., :-1] == ordered[..., 1:]) & (ordered[..., 1:] < blocks)).any():
        raise ValueError("indices: a list has a number twice")
    if block_k > 1:
        kept = torch.zeros(*ordered.shape[:3], blocks + 1, dtype=torch.bool).scatter_(3, ordered, True)[..., :blocks]
        return _plan(cls, kept, block_q, block_k, n_rows, n_keys, causal, None, "top-k")
    words = torch.cat([_words.of_indices(one, block_q, n_rows, n_keys) for one in ordered])
    return cls(words, n_rows, n_keys, causal, None, "top-k")


def from_block_lists(cls, row_ptr, columns, *, n_rows, n_keys, block_q=128, block_k=128, causal=True, bits=None, words=None):
    """A plan from block lists that were made on a CUDA device and stay there, for calls on that device alone: row_ptr
    [B or 1, H or 1, ceil(n_rows / block_q) + 1], offsets into columns, [n] numbers of key blocks, each at most once in a row block.
    block_q and block_k: 64 or 128.
    bits: [n] of each column -1 (all of its block) or the number of its mask in words, [masks, block_q, block_k / 32]: key c of row r is
    bit c % 32 of words[mask, r, c // 32]. All int32. Looked through on the device, which the call waits for."""
    _sizes(n_rows=n_rows, n_keys=n_keys)
    for name, size in (("block_q", block_q), ("block_k", block_k)):
        if size not in (64, 128):
            raise ValueError(f"{name}: got {size}, need 64 or 128")
    if (bits is None) != (words is None):
        raise ValueError("bits and words: got one of them, need both or neither")
    masks = None if words is None else (None, block_q, block_k // 32)
    shapes = [("row_ptr", row_ptr, (None, None, _blocks(n_rows, block_q) + 1)), ("columns", columns, (None,)), ("bits", bits, (None,)),
              ("words", words, masks)]
    for name, x, shape in shapes:
        if x is None and name in ("bits", "words"):
            continue
        if not isinstance(x, torch.Tensor) or not x.is_cuda or x.dtype != torch.int32:
            got = f"{x.dtype} on {x.device}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"{name}: got {got}, need an int32 tensor on a CUDA device; Plan.from_bsr takes lists on the CPU")
        if x.device != row_ptr.device:
            raise ValueError(f"{name} is on {x.device}, row_ptr on {row_ptr.device}: need one device")
        if x.dim() != len(shape) or any(n is not None and n != m for n, m in zip(shape, x.shape)):
            raise ValueError(f"{name}: shape {list(x.shape)}, need {['any' if n is None else n for n in shape]}")
    if bits is not None and bits.shape != columns.shape:
        raise ValueError(f"bits: {bits.numel()} numbers, need one for each of {columns.numel()} columns")
    lists = Lists(*(None if x is None else x.contiguous() for _, x, _ in shapes), block_q=block_q, block_k=block_k)
    _cuda.check_lists(lists, row_ptr.shape[0], row_ptr.shape[1], n_rows, n_keys)
    return cls(torch.empty(0, dtype=torch.int32), n_rows, n_keys, causal, None, "block lists", lists)
