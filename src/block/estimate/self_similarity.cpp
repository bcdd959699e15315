// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/self_similarity.h"

#include <vector>

#include "block/slots.h"
#include "op/alike.h"

namespace lacuna::block {
namespace {

// Of all keys of each head. In double, block by block: a mean of many.
std::vector<float> mean_keys(const BlockSums& keys, int heads) {
  std::vector<float> out;
  std::vector<double> sum(static_cast<std::size_t>(keys.dim));
  for (int h = 0; h < heads; ++h) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::int64_t b = 0; b < keys.blocks(); ++b)
      for (std::size_t d = 0; d < sum.size(); ++d) sum[d] += keys.of(h, b)[d];
    for (const double s : sum) out.push_back(static_cast<float>(s / static_cast<double>(keys.n)));
  }
  return out;
}

}  // namespace

SelfSimilarity self_similarity(const AttentionView& x, std::int32_t block_q, const BlockSums& keys, bool smooth,
                               Context& context) {
  SelfSimilarity out;
  out.row_sums = {.dim = x.dk, .block = block_q, .n = x.grid.n_rows};
  out.row_blocks = static_cast<std::int32_t>(out.row_sums.blocks());
  out.key_blocks = keys.blocks();
  const std::int64_t of_rows = std::int64_t{x.grid.heads} * out.row_blocks, of_keys = x.hkv * out.key_blocks;
  float* sim = context.scratch_as<float>(kAlikeSlot, static_cast<std::size_t>(of_rows + of_keys));
  float* sums = context.scratch_as<float>(kPoolSlot, static_cast<std::size_t>(of_rows * x.dk));
  out.rows = sim;
  out.keys = sim + of_rows;
  out.row_sums.sum = sums;
  op::Alike::Args rows{.block = block_q, .n = x.grid.n_rows, .sim = sim, .sum = sums};
  read_rows(rows, x);
  context.run<op::Alike>(rows);
  const std::vector<float> mean = smooth ? mean_keys(keys, x.hkv) : std::vector<float>();
  op::Alike::Args of{.block = keys.block, .n = x.grid.n_keys, .less = smooth ? mean.data() : nullptr, .sim = sim + of_rows};
  read_keys(of, x);
  context.run<op::Alike>(of);
  return out;
}

}  // namespace lacuna::block
