// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/pooled.h"

#include <limits>
#include <vector>

#include "op/pack.h"
#include "op/range_sums.h"
#include "op/strided_scores.h"

namespace lacuna::block {
namespace {

// Row blocks that see only the first keys of the block of their last own key, and the sums of these keys.
struct CutBlocks {
  std::vector<std::int32_t> of_row_block;     // its number among the cut ones, or -1
  std::vector<std::int64_t> begin, end;       // keys
  const float* sum = nullptr;                 // [hkv][cut][dk], in kWorkSlot
  const float* of(std::int64_t kv, std::int32_t cut, int dk) const {
    return sum + (kv * static_cast<std::int64_t>(begin.size()) + cut) * dk;
  }
};

CutBlocks cut_blocks(const AttentionView& x, const BlockSums& rows, const BlockSums& keys, Context& context) {
  CutBlocks out;
  for (std::int64_t u = 0; u < rows.blocks(); ++u) {
    const std::int64_t seen = x.grid.first_key + u * rows.block + rows.size(u), last = (seen - 1) / keys.block;
    const bool cut = seen < last * keys.block + keys.size(last);
    out.of_row_block.push_back(cut ? static_cast<std::int32_t>(out.begin.size()) : -1);
    if (!cut) continue;
    out.begin.push_back(last * keys.block);
    out.end.push_back(seen);
  }
  if (out.begin.empty()) return out;
  float* sum = context.scratch_as<float>(kWorkSlot, static_cast<std::size_t>(x.hkv * x.dk) * out.begin.size());
  op::RangeSums::Args a;
  read_keys(a, x);
  a.ranges = static_cast<std::int32_t>(out.begin.size());
  a.begin = out.begin.data();
  a.end = out.end.data();
  a.sum = sum;
  context.run<op::RangeSums>(a);
  out.sum = sum;
  return out;
}

}  // namespace

PooledScores pooled_scores(const AttentionView& x, const BlockSums& rows, const BlockSums& keys, Context& context,
                           Wanted wanted) {
  const Grid& g = x.grid;
  PooledScores out;
  out.row_blocks = static_cast<std::int32_t>(rows.blocks());
  out.key_blocks = keys.blocks();
  out.score = context.scratch_as<float>(kMassSlot, static_cast<std::size_t>(g.heads * out.row_blocks * out.key_blocks));
  // Sums of keys, packed as keys are, are the keys of a small product.
  PackedView packed{nullptr, PackFormat::lane16_f32, x.hkv, x.dk, out.key_blocks};
  void* const room = context.scratch(kPackSlot, static_cast<std::size_t>(tiles_of(out.key_blocks) * x.hkv) * packed.block_bytes());
  packed.data = room;
  context.run<op::Pack>({.dtype = Dtype::f32,
                         .raw = keys.sum,
                         .head = out.key_blocks * x.dk,
                         .cell = x.dk,
                         .n = out.key_blocks,
                         .format = packed.format,
                         .heads = x.hkv,
                         .dim = x.dk,
                         .packed = room});
  for_wanted_groups(x, wanted, x.hkv, [&](std::int32_t first, std::int32_t heads, std::int32_t kv, std::int32_t kv_heads) {
    context.run<op::StridedScores>({.stride = 1,
                                    .hq = heads,
                                    .hkv = kv_heads,
                                    .dk = x.dk,
                                    .n_rows = out.row_blocks,
                                    .n_keys = out.key_blocks,
                                    .q = rows.of(first, 0),
                                    .q_head = out.row_blocks * std::int64_t{x.dk},
                                    .q_row = x.dk,
                                    .packed_k = from_head(packed, kv),
                                    .score = out.row(first, 0),
                                    .score_row = out.key_blocks,
                                    .first_key_of_row0 = -1});
  });
  const CutBlocks cut = cut_blocks(x, rows, keys, context);
  context.threads().each(g.heads, [&](int h, int) {
    if (!is_wanted(wanted, h)) return;
    for (std::int32_t u = 0; u < out.row_blocks; ++u) {
      float* to = out.row(h, u);
      const std::int64_t seen = g.first_key + std::int64_t{u} * rows.block + rows.size(u), last = (seen - 1) / keys.block;
      const float share = 1.0f / static_cast<float>(rows.size(u));
      const float of_whole = share / static_cast<float>(keys.block);
      for (std::int64_t b = 0; b < last; ++b) to[b] *= of_whole;
      if (const std::int32_t c = cut.of_row_block[static_cast<std::size_t>(u)]; c >= 0) {
        const float *q = rows.of(h, u), *k = cut.of(h / (g.heads / x.hkv), c, x.dk);
        to[last] = 0;
        for (int d = 0; d < x.dk; ++d) to[last] += q[d] * k[d];
      }
      to[last] *= share / static_cast<float>(seen - last * keys.block);
      std::fill(to + last + 1, to + out.key_blocks, -std::numeric_limits<float>::infinity());
    }
  });
  return out;
}

}  // namespace lacuna::block
