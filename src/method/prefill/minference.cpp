// SPDX-License-Identifier: Apache-2.0
// MInference: a head has one of three shapes, whose places are found anew in each prompt. Which shape a
// head has is searched offline in the paper; here all heads take the one that is named.
//   vertical-slash  exact attention of the last rows, summed over columns and over diagonals; the best
//                   `vertical` columns and `slash` distances are kept (block/stripes.h)
//   block-sparse    mean queries times mean keys; the best blocks of each row block are kept
//   a-shape         sinks and a window
// Jiang et al., NeurIPS 2024, arXiv:2407.02490.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "block/budget/top_count.h"
#include "block/estimate/last_rows.h"
#include "block/estimate/pooled.h"
#include "block/slots.h"
#include "block/stripes.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

// A chunk's last rows choose for all of it.
constexpr Exemption kExemptions[] = {
    {"causal", "a chunk's last rows choose the lines of all its rows: what they see decides what earlier rows keep"},
    {"chunks", "every chunk's last rows choose for that chunk, so other chunks choose other lines"},
};

constexpr Card kCard{
    .slug = "minference",
    .title = "MInference",
    .paper = "arXiv:2407.02490",
    .family = "prefill",
    .summary = "Vertical and slash lines, blocks, or sinks and a window.",
    .notes =
        "The estimate reads the last rows of every chunk, whether or not the prompt ends there; a chunk of fewer than "
        "four times last_rows rows is dense, since the estimate would cost more than it saves. Row blocks count from the "
        "chunk's first row. Lines are kept as whole ranges of a block's width, as in the official code, so more than the "
        "bare lines is attended. Block-sparse heads always keep the blocks of a row block's own keys (the official code "
        "forces none). All heads take `kind`: the offline search of a shape per head is not here yet. Preset paper: the fallback of the official code, 1000 "
        "columns and 6096 distances, made for 100,000 tokens: below 8,000 it keeps nearly everything. Preset auto "
        "takes shares of the prompt, not yet tuned on a model: keep = 0.2 of the distances, a sixth of that of the columns.",
    .reads_prompt_end = true,
    .selects = "global",
    .keep_all = "minference:slash=1073741824",
    .small = "minference:vertical=8:slash=23:sink=4:window=20:last_rows=16",
    .granule = 64,
    .exemptions = kExemptions,
};

constexpr std::int32_t kBlock = 64;

class MInference final : public Method {
 public:
  std::string kind = "vertical-slash";
  double keep = 0.2;
  std::int64_t vertical = 0, slash = 0;
  std::int64_t sink = 30, window = 100;
  std::int64_t last_rows = 64;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(kind, "kind", "vertical-slash|block-sparse|a-shape", "shape of all heads");
    v(keep, "keep", 0.0, 1.0, "share of the distances, and of a row block's blocks, where no count is given", true);
    v(vertical, "vertical", 0, std::int64_t{1} << 30, "columns kept; 0 = a sixth of keep * keys, at least 30");
    v(slash, "slash", 0, std::int64_t{1} << 30, "distances kept; 0 = keep * keys, at least 50");
    v(sink, "sink", 0, 1 << 20, "first keys, always kept");
    v(window, "window", 1, std::int64_t{1} << 30, "nearest distances, always kept");
    v(last_rows, "last_rows", 1, 4096, "rows at a chunk's end whose attention is the estimate");
  }
  Status preset(std::string_view name) override {
    if (name == "auto") *this = MInference();
    if (name == "paper") {
      *this = MInference();
      vertical = 1000;
      slash = 6096;
      keep = 1.0;
    }
    return Method::preset(name);
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("minference: decode is dense");
    if (x.grid.n_rows < 4 * last_rows)
      return dense_plan(fmt::format("minference: a chunk of {} rows, fewer than 4 * last_rows: the estimate would cost more "
                                    "than it saves", x.grid.n_rows));
    if (x.grid.n_keys <= 2 * kBlock || slashes(x) >= x.grid.n_keys)
      return dense_plan(fmt::format("minference: {} keys, all within reach", x.grid.n_keys));
    if (kind == "a-shape") return plan_of(Window{.sink = std::max<std::int64_t>(sink, 1), .window = std::max(window, share(x))});
    if (kind == "block-sparse") return plan_of(blocks(x, context));
    return plan_of(stripes(x, context));
  }

 private:
  std::int64_t share(const AttentionView& x) const {
    return static_cast<std::int64_t>(std::ceil(keep * static_cast<double>(x.grid.n_keys)));
  }
  std::int64_t slashes(const AttentionView& x) const { return slash > 0 ? slash : std::max<std::int64_t>(50, share(x)); }
  std::int64_t columns(const AttentionView& x) const { return vertical > 0 ? vertical : std::max<std::int64_t>(30, share(x) / 6); }

  Ranges stripes(const AttentionView& x, Context& context) const {
    const auto n = static_cast<std::int32_t>(x.grid.n_keys);
    block::LineSums sums;
    {
      const Timed timed(context, Verb::estimate);
      sums = block::last_rows(x, static_cast<std::int32_t>(last_rows), context);
    }
    const Timed timed(context, Verb::budget);
    const auto capped = [n](std::int64_t count) { return static_cast<std::int32_t>(std::min<std::int64_t>(count, n)); };
    const std::int32_t row_blocks = (x.grid.n_rows + kBlock - 1) / kBlock;
    std::vector<std::vector<Range>> lists(static_cast<std::size_t>(x.grid.heads * row_blocks));
    auto* work = context.scratch_as<block::Weighted>(block::kWorkSlot, static_cast<std::size_t>(context.threads().workers()) * n);
    auto* kept = context.scratch_as<std::int32_t>(block::kKeptSlot, static_cast<std::size_t>(context.threads().workers()) * 2 * n);
    context.threads().each(x.grid.heads, [&](int h, int worker) {
      std::int32_t *cols = kept + std::int64_t{worker} * 2 * n, *dists = cols + n;
      block::Weighted* w = work + std::int64_t{worker} * n;
      const std::int64_t at = std::int64_t{h} * n;
      const auto n_cols = block::top_count(sums.vertical + at, n, capped(sink), capped(columns(x)), w, cols);
      const auto n_dists = block::top_count(sums.slash + at, n, capped(window), capped(slashes(x)), w, dists);
      for (std::int32_t u = 0; u < row_blocks; ++u)
        block::append_stripes(x.grid, kBlock, u, {cols, static_cast<std::size_t>(n_cols)}, {dists, static_cast<std::size_t>(n_dists)},
                              lists[static_cast<std::size_t>(h * row_blocks + u)]);
    });
    return join_ranges(x.grid, kBlock, x.grid.heads, lists);
  }

  BlockMap blocks(const AttentionView& x, Context& context) const {
    block::PooledScores scores;
    {
      const Timed timed(context, Verb::estimate);
      scores = block::pooled_scores(x, kBlock, kBlock, context);
    }
    const Timed timed(context, Verb::budget);
    BlockMap map{.heads = x.grid.heads, .block_q = kBlock, .block_k = kBlock, .n_rows = x.grid.n_rows, .n_keys = x.grid.n_keys, .row_ptr = {}, .cols = {}};
    std::vector<block::Weighted> work(static_cast<std::size_t>(scores.key_blocks));
    std::vector<std::int32_t> kept(work.size());
    for (std::int32_t h = 0; h < x.grid.heads; ++h) {
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
      for (std::int32_t u = 0; u < scores.row_blocks; ++u) {
        const auto all = static_cast<std::int32_t>(causal_blocks(x.grid, kBlock, kBlock, u));
        const auto own = static_cast<std::int32_t>((x.grid.first_key + std::int64_t{u} * kBlock) / kBlock);  // first of its own blocks
        const auto want = static_cast<std::int32_t>(std::ceil(keep * all)) - (all - own);
        const std::int32_t n = block::top_count(scores.row(h, u), own, 0, std::max(want, 0), work.data(), kept.data());
        map.cols.insert(map.cols.end(), kept.begin(), kept.begin() + n);
        for (std::int32_t b = own; b < all; ++b) map.cols.push_back(b);
        map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
      }
    }
    return map;
  }
};

}  // namespace

LACUNA_METHOD(minference, MInference)

}  // namespace lacuna::method
