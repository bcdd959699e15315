// SPDX-License-Identifier: Apache-2.0
// The kept key blocks of one (list, row block) while several rules add to them, and the block map that
// many of them become.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pattern/pattern.h"

namespace lacuna::block {

// kept [heads][row blocks][key blocks], one byte each; nonzero = kept. Blocks that begin after a row
// block's last own key are left out.
inline BlockMap to_block_map(const Grid& g, std::int32_t block_q, std::int32_t block_k, const std::uint8_t* kept) {
  BlockMap map{.heads = g.heads, .block_q = block_q, .block_k = block_k, .n_rows = g.n_rows, .n_keys = g.n_keys,
               .row_ptr = {}, .cols = {}};
  const std::int32_t row_blocks = map.q_blocks();
  const std::int64_t key_blocks = map.k_blocks();
  for (std::int32_t h = 0; h < g.heads; ++h) {
    map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    for (std::int32_t u = 0; u < row_blocks; ++u) {
      const std::uint8_t* row = kept + (std::int64_t{h} * row_blocks + u) * key_blocks;
      for (std::int64_t b = 0; b < std::min(causal_blocks(g, block_q, block_k, u), key_blocks); ++b)
        if (row[b]) map.cols.push_back(static_cast<std::int32_t>(b));
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    }
  }
  return map;
}

}  // namespace lacuna::block
