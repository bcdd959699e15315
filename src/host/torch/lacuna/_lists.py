# SPDX-License-Identifier: Apache-2.0
"""Plans as the lists of blocks and pages that the CUDA kernels walk, made on the CPU and moved to a GPU in one copy."""
import dataclasses

import torch

from ._library import LIBRARY  # noqa: F401  loads the operators

# Where what stands in the front of the tensor that the library makes: src/host/torch/lists.cpp has the same.
_DENSE, _BLOCK_Q, _BLOCK_K, _BATCHES, _LISTS, _MASKS, _CELLS, _MOST, _ROW_PTR, _COLUMNS, _BITS, _WORDS, _COUNTS, _PAGES, _ENTRIES = range(15)


@dataclasses.dataclass(frozen=True, eq=False)
class Lists:
    """Block lists on a device, int32 all of them.

    row_ptr: [1 or B, 1 or Hkv or Hq, row blocks + 1], offsets into columns, [n] numbers of key blocks.
    bits: [n] of each column -1 (all of the block) or the number of its mask in words, [masks, block_q, block_k / 32]; None: all -1.
    counts, pages: [1 or B, 1 or Hkv or Hq], [.., most] the same as pages of `cells` keys, for at most 16 rows; None: there are none.
    dense: everything is kept, and there are no lists."""

    row_ptr: torch.Tensor | None = None
    columns: torch.Tensor | None = None
    bits: torch.Tensor | None = None
    words: torch.Tensor | None = None
    counts: torch.Tensor | None = None
    pages: torch.Tensor | None = None
    block_q: int = 128
    block_k: int = 128
    cells: int = 1
    dense: bool = False

    @property
    def device(self):
        return None if self.row_ptr is None else self.row_ptr.device

    @property
    def tensors(self):
        """As the operators take them."""
        return self.row_ptr, self.columns, self.bits, self.words


def make(words, mask, rows, keys, causal, device):
    """The Lists of a plan on a device. Waits until they are there.

    Raises ValueError where words, mask and sizes do not fit, RuntimeError for plans that have no such lists."""
    mask = None if mask is None else mask.cpu().contiguous()
    packed = torch.ops.lacuna._block_lists(words.cpu().contiguous(), mask, rows, keys, causal)
    head = packed[:_ENTRIES + 1].tolist()
    if head[_DENSE]:
        return Lists(dense=True)
    moved = packed.to(device)

    def part(at, *shape):
        return moved[head[at]:head[at] + torch.Size(shape).numel()].view(shape)

    lists, entries, block_q, block_k = (head[_BATCHES], head[_LISTS]), head[_ENTRIES], head[_BLOCK_Q], head[_BLOCK_K]
    masks, cells = head[_MASKS], head[_CELLS]
    return Lists(
        part(_ROW_PTR, *lists, -(-rows // block_q) + 1), part(_COLUMNS, entries),
        part(_BITS, entries) if masks else None, part(_WORDS, masks, block_q, block_k // 32) if masks else None,
        part(_COUNTS, *lists) if cells else None, part(_PAGES, *lists, head[_MOST]) if cells else None,
        block_q, block_k, cells or 1)
