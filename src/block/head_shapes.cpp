// SPDX-License-Identifier: Apache-2.0
#include "block/head_shapes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "block/budget/top_count.h"
#include "block/estimate/last_rows.h"
#include "block/estimate/pooled.h"
#include "block/slots.h"
#include "block/stripes.h"
#include "op/top_weights.h"

namespace lacuna::block {
namespace {

// A byte for each head: whether it is of the kind.
std::vector<std::uint8_t> heads_of(std::span<const HeadShape> shapes, HeadKind kind) {
  std::vector<std::uint8_t> out;
  for (const HeadShape& s : shapes) out.push_back(s.kind == kind);
  return out;
}

}  // namespace

Ranges stripes_of(const AttentionView& x, std::span<const HeadShape> shapes, const Lines& lines, Context& context) {
  const auto n = static_cast<std::int32_t>(x.grid.n_keys);
  const std::vector<std::uint8_t> wanted = heads_of(shapes, HeadKind::vertical_slash);
  LineSums sums;
  {
    const Timed timed(context, Verb::estimate);
    sums = last_rows(x, static_cast<std::int32_t>(lines.last_rows), context, wanted);
  }
  const Timed timed(context, Verb::budget);
  const std::int32_t row_blocks = (x.grid.n_rows + kShapeBlock - 1) / kShapeBlock, words = (n + 31) / 32;
  // Bits of the kept columns, then of the kept distances: [2][heads][words].
  const std::int64_t half = std::int64_t{x.grid.heads} * words;
  auto* kept = context.scratch_as<std::uint32_t>(kKeptSlot, static_cast<std::size_t>(2 * half));
  auto* count = context.scratch_as<std::int32_t>(kCountSlot, static_cast<std::size_t>(2 * x.grid.heads));
  const auto capped = [n](std::int64_t c) { return static_cast<std::int32_t>(std::min<std::int64_t>(c, n)); };
  for (std::int32_t h = 0; h < x.grid.heads; ++h) {
    count[h] = capped(shapes[static_cast<std::size_t>(h)].columns);
    count[x.grid.heads + h] = capped(shapes[static_cast<std::size_t>(h)].reach);
  }
  for_wanted_groups(x, wanted, x.hkv, [&](std::int32_t first, std::int32_t heads, std::int32_t, std::int32_t) {
    for (const bool slash : {false, true})
      context.run<op::TopWeights>({.rows = heads,
                                   .n = n,
                                   .weight = (slash ? sums.slash : sums.vertical) + std::int64_t{first} * n,
                                   .weight_row = n,
                                   .forced = capped(slash ? lines.window : lines.sink),
                                   .count = count + (slash ? x.grid.heads : 0) + first,
                                   .kept = kept + (slash ? half : 0) + std::int64_t{first} * words,
                                   .kept_row = words});
  });
  std::vector<std::vector<Range>> lists(static_cast<std::size_t>(x.grid.heads * row_blocks));
  context.threads().each(x.grid.heads, [&](int h, int) {
    if (!wanted[static_cast<std::size_t>(h)]) return;
    const auto of_head = [&](std::int64_t from) {
      return std::span<const std::uint32_t>(kept + from + std::int64_t{h} * words, static_cast<std::size_t>(words));
    };
    const Stripes stripes(x.grid, kShapeBlock, of_head(0), of_head(half));
    for (std::int32_t u = 0; u < row_blocks; ++u) stripes.append(u, lists[static_cast<std::size_t>(h * row_blocks + u)]);
  });
  return join_ranges(x.grid, kShapeBlock, x.grid.heads, lists);
}

std::int32_t best_blocks(const Grid& g, const HeadShape& shape, const float* score, std::int32_t u, float* work,
                         std::int32_t* kept) {
  const auto all = static_cast<std::int32_t>(causal_blocks(g, kShapeBlock, kShapeBlock, u));
  const auto own = static_cast<std::int32_t>(first_own_block(g, kShapeBlock, kShapeBlock, u));
  const std::int64_t count = shape.share > 0 ? static_cast<std::int64_t>(std::ceil(shape.share * all)) : shape.reach;
  const std::int64_t want = std::clamp<std::int64_t>(count - (all - own), 0, own);
  std::int32_t n = top_count(score, own, 0, static_cast<std::int32_t>(want), work, kept);
  for (std::int32_t b = own; b < all; ++b) kept[n++] = b;
  return n;
}

BlockMap blocks_of(const AttentionView& x, std::span<const HeadShape> shapes, Context& context) {
  PooledScores scores;
  {
    const Timed timed(context, Verb::estimate);
    scores = pooled_scores(x, kShapeBlock, kShapeBlock, context, heads_of(shapes, HeadKind::block_sparse));
  }
  const Timed timed(context, Verb::budget);
  BlockMap map{.heads = x.grid.heads,
               .block_q = kShapeBlock,
               .block_k = kShapeBlock,
               .n_rows = x.grid.n_rows,
               .n_keys = x.grid.n_keys,
               .row_ptr = {},
               .cols = {}};
  std::vector<float> work(static_cast<std::size_t>(scores.key_blocks));
  std::vector<std::int32_t> kept(work.size());
  for (std::int32_t h = 0; h < x.grid.heads; ++h) {
    const HeadShape& shape = shapes[static_cast<std::size_t>(h)];
    map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    for (std::int32_t u = 0; u < scores.row_blocks; ++u) {
      const std::int32_t n = shape.kind == HeadKind::block_sparse
                                 ? best_blocks(x.grid, shape, scores.row(h, u), u, work.data(), kept.data())
                                 : 0;
      map.cols.insert(map.cols.end(), kept.begin(), kept.begin() + n);
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    }
  }
  return map;
}

}  // namespace lacuna::block
