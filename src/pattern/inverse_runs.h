// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// InverseRuns: TileRuns seen from the keys. For every tile of the cache, and every list of the TileRuns it
// was made from, the row blocks that see some cell of it, in ascending order, each once:
//   bits < 0   every row of the block sees every cell of the tile
//   bits >= 0  row r of the block sees cell tile*32 + b iff bit b of words[bits * block_q + r] is set
// Gathered tiles do not occur: their cells stand at the tiles of the cache in which they lie. Words of rows
// beyond n_rows are not to be read.
//
// What adds up over the rows that see a key (gradients of K and V, a key's share of all attention) walks
// this. pattern/invert.h makes it, once per selection.
#pragma once

#include <cstdint>

namespace lacuna {

struct InverseEntry {
  std::int32_t block = 0;  // of rows
  std::int32_t bits = -1;
};

struct InverseRuns {
  std::int32_t tiles = 0;  // of the cache
  std::int32_t heads = 0;  // lists, as in TileRuns; 0: none was made
  std::int32_t heads_per_list = 1;
  const std::int32_t* tile_ptr = nullptr;  // [heads][tiles + 1], offsets into entries
  const InverseEntry* entries = nullptr;
  const std::uint32_t* words = nullptr;

  const std::int32_t* list(int q_head, std::int32_t tile) const {
    return tile_ptr + static_cast<std::int64_t>(heads == 1 ? 0 : q_head / heads_per_list) * (tiles + 1) + tile;
  }
};

}  // namespace lacuna
