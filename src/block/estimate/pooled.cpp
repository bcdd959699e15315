// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/pooled.h"

#include <algorithm>
#include <limits>

#include "block/row_softmax.h"

namespace lacuna::block {

PooledScores pooled_scores(const AttentionView& x, std::int32_t block_q, std::int32_t block_k, Context& context,
                           Wanted wanted) {
  const Grid& g = x.grid;
  PooledScores out;
  out.row_blocks = (g.n_rows + block_q - 1) / block_q;
  out.key_blocks = (g.n_keys + block_k - 1) / block_k;
  out.score = context.scratch_as<float>(kMassSlot, static_cast<std::size_t>(g.heads * out.row_blocks * out.key_blocks));
  const std::int64_t q_head = std::int64_t{out.row_blocks} * x.dk;
  float* mean = context.scratch_as<float>(kPoolSlot, static_cast<std::size_t>(g.heads * q_head));
  context.threads().each(g.heads * out.row_blocks, [&](int task, int) {
    const std::int32_t h = task / out.row_blocks, u = task % out.row_blocks;
    if (!is_wanted(wanted, h)) return;
    const std::int32_t first = u * block_q, rows = std::min(block_q, g.n_rows - first);
    float* to = mean + h * q_head + std::int64_t{u} * x.dk;
    std::fill(to, to + x.dk, 0.0f);
    for (std::int32_t i = first; i < first + rows; ++i) {
      const float* q = x.q + h * x.q_head + i * x.q_row;
      for (int d = 0; d < x.dk; ++d) to[d] += q[d];
    }
    for (int d = 0; d < x.dk; ++d) to[d] /= static_cast<float>(rows);
  });
  const FewRows few{mean, q_head, x.dk, out.row_blocks, -1};
  for_key_scores(x, few, context, [&](std::int32_t h, float* score, std::int64_t score_row) {
    for (std::int32_t u = 0; u < out.row_blocks; ++u) {
      const float* s = score + u * score_row;
      float* to = out.row(h, u);
      const std::int64_t last = g.first_key + std::min<std::int64_t>(std::int64_t{u + 1} * block_q, g.n_rows) - 1;
      for (std::int64_t b = 0; b < out.key_blocks; ++b) {
        const std::int64_t begin = b * block_k, end = std::min(begin + block_k, last + 1);
        if (begin > last) {
          to[b] = -std::numeric_limits<float>::infinity();
          continue;
        }
        to[b] = sum_of(s + begin, end - begin) / static_cast<float>(end - begin);
      }
    }
  }, wanted);
  return out;
}

}  // namespace lacuna::block
