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
  LineSums sums;
  {
    const Timed timed(context, Verb::estimate);
    sums =
        last_rows(x, static_cast<std::int32_t>(lines.last_rows), context, heads_of(shapes, HeadKind::vertical_slash));
  }
  const Timed timed(context, Verb::budget);
  const auto capped = [n](std::int64_t count) { return static_cast<std::int32_t>(std::min<std::int64_t>(count, n)); };
  const std::int32_t row_blocks = (x.grid.n_rows + kShapeBlock - 1) / kShapeBlock;
  std::vector<std::vector<Range>> lists(static_cast<std::size_t>(x.grid.heads * row_blocks));
  const auto workers = static_cast<std::size_t>(context.threads().workers());
  auto* work = context.scratch_as<float>(kWorkSlot, workers * static_cast<std::size_t>(n));
  auto* kept = context.scratch_as<std::int32_t>(kKeptSlot, workers * 2 * static_cast<std::size_t>(n));
  context.threads().each(x.grid.heads, [&](int h, int worker) {
    const HeadShape& shape = shapes[static_cast<std::size_t>(h)];
    if (shape.kind != HeadKind::vertical_slash) return;
    std::int32_t *cols = kept + std::int64_t{worker} * 2 * n, *dists = cols + n;
    float* w = work + std::int64_t{worker} * n;
    const std::int64_t at = std::int64_t{h} * n;
    const auto n_cols = top_count(sums.vertical + at, n, capped(lines.sink), capped(shape.columns), w, cols);
    const auto n_dists = top_count(sums.slash + at, n, capped(lines.window), capped(shape.reach), w, dists);
    for (std::int32_t u = 0; u < row_blocks; ++u)
      append_stripes(x.grid, kShapeBlock, u, {cols, static_cast<std::size_t>(n_cols)},
                     {dists, static_cast<std::size_t>(n_dists)}, lists[static_cast<std::size_t>(h * row_blocks + u)]);
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
