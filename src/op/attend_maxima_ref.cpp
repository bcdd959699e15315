// SPDX-License-Identifier: Apache-2.0
#include "op/attend_maxima_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "op/strided_scores_ref.h"

namespace lacuna::op {
namespace {

double probability(double score, double lse) {
  const double p = std::exp(score - lse);
  return std::isfinite(lse) && p > 0 ? std::min(p, 1.0) : 0.0;  // NaN is not above 0
}

}  // namespace

void attend_maxima_group_ref(const AttendMaxima::Args& a, int kv_head) {
  const int group = a.hq / a.hkv;
  const auto size = static_cast<std::size_t>(a.row_blocks() * a.key_blocks()),
             keys = static_cast<std::size_t>(a.n_keys);
  std::vector<double> sums(size);
  std::vector<float> score(keys), most(keys);
  for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    float *block_max = a.block_max ? a.block_max + h * size : nullptr,
          *block_sum = a.block_sum ? a.block_sum + h * size : nullptr;
    if (block_max) std::fill_n(block_max, size, 0.0f);
    std::fill(sums.begin(), sums.end(), 0.0);
    if (!a.by_group || h == kv_head * group) std::fill(most.begin(), most.end(), 0.0f);
    for (std::int32_t i = 0; i < a.n_rows; ++i) {
      const std::int64_t own = a.first_key + i;
      if (own < 0) continue;
      StridedScores::Args s;  // plain products: a stride of 1
      s.stride = 1;
      s.hq = s.hkv = 1;
      s.dk = a.dk;
      s.n_rows = 1;
      s.n_keys = a.n_keys;
      s.first_cell = a.first_cell;
      s.packed_k = a.packed_k;
      s.packed_k.data = a.packed_k.block(0, kv_head);
      s.q = a.q + h * a.q_head + i * a.q_row;
      s.first_key_of_row0 = own;
      s.score = score.data();
      s.score_row = a.n_keys;
      strided_scores_row_ref(s, 0, 0);
      for (std::int64_t j = 0; j <= own; ++j) {
        const double p =
            probability(double{score[static_cast<std::size_t>(j)]} * a.scale, a.lse[h * std::int64_t{a.n_rows} + i]);
        const auto at = static_cast<std::size_t>(i / a.block_q * a.key_blocks() + j / a.block_k);
        if (block_max) block_max[at] = std::max(block_max[at], static_cast<float>(p));
        sums[at] += p;
        most[static_cast<std::size_t>(j)] = std::max(most[static_cast<std::size_t>(j)], static_cast<float>(p));
      }
    }
    if (block_sum) std::copy(sums.begin(), sums.end(), block_sum);
    if (a.key_max) std::copy(most.begin(), most.end(), a.key_max + (a.by_group ? kv_head : h) * a.n_keys);
  }
}

}  // namespace lacuna::op
