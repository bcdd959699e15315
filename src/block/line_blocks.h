// SPDX-License-Identifier: Apache-2.0
// Lines of keys (columns, diagonals of one distance) as blocks: what one row block keeps of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/row_softmax.h"

namespace lacuna::block {

// sum[b] = the sum of line [n] over keys (or distances) b * block .. b * block + block - 1.
inline void block_totals(const float* line, std::int64_t n, std::int64_t block, float* sum) {
  for (std::int64_t b = 0; b * block < n; ++b) sum[b] = sum_of(line + b * block, std::min(block, n - b * block));
}

// Marks the key blocks that rows whose own keys are `first` .. `last` see at distances s * block .. s * block + block - 1: two
// block diagonals where `first` is a multiple of the block, three where it is not; `one`: the nearest of them alone.
inline void keep_diagonal(std::uint8_t* set, std::int64_t block, std::int64_t first, std::int64_t last, std::int64_t s,
                          bool one = false) {
  const std::int64_t near = last / block - s;
  const std::int64_t far = std::max<std::int64_t>(0, first - (s + 1) * block + 1) / block;
  for (std::int64_t k = one ? std::max<std::int64_t>(0, near) : far; k <= near; ++k) set[k] = 1;
}

}  // namespace lacuna::block
