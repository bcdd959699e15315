// SPDX-License-Identifier: Apache-2.0
// Estimate: scores of key blocks by mean queries and mean keys (MInference's block-sparse heads,
// arXiv:2407.02490; FlexPrefill, arXiv:2502.20766; SpargeAttn, arXiv:2502.18137).
//   score[h, u, b] = mean over rows i of block u, keys j of block b of q_i . k_j  =  (sum of q_i) . (sum of k_j) / their numbers
// Blocks of keys that begin after block u's last own key hold -infinity; a block that holds own keys counts the keys
// up to the block's last row.
#pragma once

#include "block/estimate/block_sums.h"
#include "block/estimate/key_scores.h"
#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

struct PooledScores {
  float* score = nullptr;  // [heads][row_blocks][key_blocks], in kMassSlot
  std::int32_t row_blocks = 0;
  std::int64_t key_blocks = 0;
  float* row(std::int32_t h, std::int32_t u) const { return score + (std::int64_t{h} * row_blocks + u) * key_blocks; }
};

// Of blocks whose sums are there. Scores of heads that are not wanted are undefined.
PooledScores pooled_scores(const AttentionView& x, const BlockSums& rows, const BlockSums& keys, Context& context,
                           Wanted wanted = {});
inline PooledScores pooled_scores(const AttentionView& x, std::int32_t block_q, std::int32_t block_k, Context& context,
                                  Wanted wanted = {}) {
  return pooled_scores(x, row_sums(x, block_q, context), key_sums(x, block_k, context), context, wanted);
}

}  // namespace lacuna::block
