// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// TileRuns: the one form in which CPU kernels are told what to attend. engine/lower makes it from a
// plan; kernels only walk it.
//
// Cache cells are cut into tiles of kTileKeys. Query rows are cut into blocks of `block_q`. For every
// row block, and every query head or group of them, there is a list of runs, in ascending order, never
// overlapping:
//   bits < 0   tiles [begin, end): every row of the block sees every cell (FULL)
//   bits >= 0  one tile (end == begin + 1): row r sees cell begin*32 + b iff bit b of
//              words[bits * block_q + r] is set (PARTIAL)
// A run never names a cell >= n_cells through a set bit; a FULL tile lies wholly below n_cells.
//
// Tiles numbered first_gathered and up (beyond all tiles of the cache) are gathered: cell b of tile t
// is the cache's cell slots[(t - first_gathered) * 32 + b], in any order, or -1: nobody, which only
// pads the end of a list's last tile, and is never visible. Kernels read these cells from raw K and V.
// A run is of tiles of one kind, and a row sees a cell through one tile of its list only.
//
// Closed forms, block lists, element masks and token lists all lower to this: see docs/decisions/003.
#pragma once

#include <cstdint>

namespace lacuna {

constexpr int kTileKeys = 32;
constexpr int kMaxBlockQ = 128;

struct TileRun {
  std::int32_t begin = 0, end = 0;  // tiles
  std::int32_t bits = -1;
};

struct TileRuns {
  std::int32_t block_q = 64;     // rows per block, 1..kMaxBlockQ
  std::int32_t n_rows = 0;       // query rows in all
  std::int32_t heads = 1;        // lists: 1, or one per KV head, or one per query head
  std::int64_t n_cells = 0;
  const std::int32_t* row_ptr = nullptr;  // [heads][n_blocks() + 1], offsets into runs
  const TileRun* runs = nullptr;
  const std::uint32_t* words = nullptr;
  std::int32_t heads_per_list = 1;  // neighbouring query heads that share a list, where there are several lists
  const std::int32_t* slots = nullptr;  // null: no gathered tiles
  std::int32_t first_gathered = INT32_MAX;

  std::int32_t n_blocks() const { return (n_rows + block_q - 1) / block_q; }
  const std::int32_t* list(int q_head, int block) const {
    return row_ptr + static_cast<std::int64_t>(heads == 1 ? 0 : q_head / heads_per_list) * (n_blocks() + 1) + block;
  }
  // The cache's cell that stands at place b of a tile; -1: nobody.
  std::int64_t cell(std::int32_t tile, int b) const {
    if (tile < first_gathered) return std::int64_t{tile} * kTileKeys + b;
    return slots[std::int64_t{tile - first_gathered} * kTileKeys + b];
  }
};

}  // namespace lacuna
