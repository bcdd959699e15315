# SPDX-License-Identifier: Apache-2.0
"""Plans as the library reads them: the words of src/engine/plan_words.h, made of tensors."""
import torch

FORMAT = 0x4C500001
WHOLE_CALL = -1
BLOCKS, RANGES = 2, 3
MOST_ROWS = 128  # of a block, as kernels walk them


def _join(head, *lists):
    """One sequence's plan: a pattern for all heads, rows and keys."""
    pattern = [torch.tensor(head, dtype=torch.int32), *(x.flatten().to(torch.int32) for x in lists)]
    words = sum(x.numel() for x in pattern) + 6
    return torch.cat([torch.tensor([FORMAT, words, WHOLE_CALL, 1, 0, 0], dtype=torch.int32), *pattern])


def _pointers(counts):
    """Offsets of lists that lie one after the other, [lists, blocks] -> [lists, blocks + 1]."""
    ends = counts.flatten().cumsum(0).view(counts.shape)
    return torch.cat([ends[:, :1] - counts[:, :1], ends], 1)


def of_blocks(kept, block_q, block_k, rows, keys):
    """kept: bool [lists, ceil(rows / block_q), ceil(keys / block_k)]."""
    if block_q > MOST_ROWS:  # several smaller blocks that keep the same
        part = max(d for d in range(1, MOST_ROWS + 1) if block_q % d == 0)
        kept = kept.repeat_interleave(block_q // part, 1)[:, :-(-rows // part)]
        block_q = part
    at = kept.nonzero()[:, 2]
    return _join([BLOCKS, kept.shape[0], block_q, block_k, rows, keys, at.numel()], _pointers(kept.sum(2)), at)


def of_indices(indices, block_q, rows, keys):
    """indices: whole numbers [lists, ceil(rows / block_q), n] of keys, ascending, those at the end that are `keys` or more
    stand for none."""
    valid = indices < keys
    before = torch.nn.functional.pad(indices, (1, 0), value=-2)[..., :-1]
    after = torch.nn.functional.pad(indices, (0, 1), value=-2)[..., 1:]
    first, last = valid & (indices != before + 1), valid & ((indices != after - 1) | (after >= keys))
    ranges = torch.stack([indices[first], indices[last] + 1], 1)
    return _join([RANGES, 0, indices.shape[0], block_q, rows, keys, ranges.shape[0]], _pointers(first.sum(2)), ranges)
