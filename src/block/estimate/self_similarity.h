// SPDX-License-Identifier: Apache-2.0
// Estimate: how far the vectors of a block point one way, and so how well their mean stands for them
// (SpargeAttn, arXiv:2502.18137).
//   sim = sum over pairs (i, j) of u_i . u_j / n^2 = |sum of u_i|^2 / n^2,  u = rows scaled to length 1
// 1: all point one way; about 1/n: they point anywhere; 0: they cancel. Rows of length 0 do not count,
// and a block of nothing else has 1. A block with a NaN or an infinity has NaN: no bound is met.
#pragma once

#include "block/estimate/block_sums.h"
#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

struct SelfSimilarity {
  const float* rows = nullptr;  // [heads][row_blocks], in kAlikeSlot, and behind it
  const float* keys = nullptr;  // [hkv][key_blocks]
  std::int32_t row_blocks = 0;
  std::int64_t key_blocks = 0;
  BlockSums row_sums;           // what was met on the way
  float of_rows(std::int32_t h, std::int32_t u) const { return rows[std::int64_t{h} * row_blocks + u]; }
  const float* of_keys(std::int32_t kv) const { return keys + kv * key_blocks; }
};

// Of the key blocks that `keys` has the sums of. `smooth`: of the keys less their mean over the segment. Softmax does
// not see that mean, and a large one would make any keys look alike.
SelfSimilarity self_similarity(const AttentionView& x, std::int32_t block_q, const BlockSums& keys, bool smooth,
                               Context& context);

}  // namespace lacuna::block
