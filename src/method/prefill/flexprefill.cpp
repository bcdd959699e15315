// SPDX-License-Identifier: Apache-2.0
// FlexPrefill: per head and prompt, pooled block scores are used where they agree with the exact
// attention of the last rows, else vertical and slash blocks; sizes follow from a mass target.
//   p = softmax(mean of the last rows . mean keys), v = block sums of the exact columns
//   query-aware  iff  sqrt(JS(p, v)) < divergence:
//     the (row block, key block) pairs of largest pooled attention that sum to `mass` of all of it
//   all heads: the vertical blocks and slash block-diagonals that cover `mass` of the exact sums
//   (only the minimum of them in query-aware heads)
// Lai et al., ICLR 2025, arXiv:2502.20766.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "block/block_set.h"
#include "block/budget/top_count.h"
#include "block/budget/top_mass.h"
#include "block/estimate/last_rows.h"
#include "block/estimate/pooled.h"
#include "block/line_blocks.h"
#include "block/row_softmax.h"
#include "block/row_view.h"
#include "block/slots.h"
#include "method/method.h"
#include "op/top_weights.h"

namespace lacuna::method {
namespace {

// A chunk's last rows choose for all of it.
constexpr Exemption kExemptions[] = {
    {"causal", "a chunk's last rows choose the lines of all its rows: what they see decides what earlier rows keep"},
    {"chunks", "every chunk's last rows choose for that chunk, so other chunks choose other lines"},
};

constexpr Card kCard{
    .slug = "flexprefill",
    .title = "FlexPrefill",
    .paper = "arXiv:2502.20766",
    .family = "prefill",
    .summary = "Blocks by mass: pooled scores where they can be trusted, else vertical and slash.",
    .notes =
        "The estimate reads the last `block` rows of every chunk; a chunk of fewer than four times as many rows is dense. "
        "Row blocks count from the chunk's first row; where that is no multiple of the block, a slash block covers both "
        "block diagonals that its distances touch, as `cover = exact` does everywhere (the official code covers one). "
        "The official code turns counts of tokens into blocks with a fixed 128; here the block is used. The mass target of "
        "query-aware heads counts the rows of the chunk. Blocks of own keys and block 0 are always kept. Preset paper: "
        "mass 0.9, at least 1024 tokens; it was made for 100,000 tokens. Preset auto: block 64, mass 0.999, at "
        "least 1/16 of the keys; it loses 0.4 % on SmolLM2 135M at 7,000 tokens and 0.7 % on Gemma 3 270M at 26,000, mass "
        "0.97 8 % and 7 % (bench/results/intel-xeon-amx/methods-*.txt).",
    .reads_prompt_end = true,
    .selects = "global",
    .keep_all = "flexprefill:min_budget=1073741824",
    .small = "flexprefill:mass=0.5:block=32:min_budget=32",
    .granule = 128,
    .exemptions = kExemptions,
};

class FlexPrefill final : public Method {
 public:
  double mass = 0.999;
  double divergence = 0.1;
  std::int64_t block = 64;
  std::int64_t min_budget = 0, max_budget = 0;
  std::string cover = "one";

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mass, "mass", 0.0, 1.0, "share of attention to cover", true);
    v(divergence, "divergence", 0.0, 1.0, "distance of pooled from exact attention below which a head is query-aware");
    v(block, "block", 16, 128, "rows and keys of a block: 16, 32, 64 or 128");
    v(min_budget, "min_budget", 0, std::int64_t{1} << 30, "least tokens of vertical and of slash blocks; 0 = 1/16 of the keys");
    v(max_budget, "max_budget", 0, std::int64_t{1} << 30, "most tokens of each; 0 = no limit");
    v(cover, "cover", "one|exact", "block diagonals of a slash block: one, or all its distances touch");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = FlexPrefill();
    if (name == "paper") {
      mass = 0.9;
      block = 128;
      min_budget = 1024;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 16 && block != 32 && block != 64 && block != 128)
      return bad_argument(fmt::format("flexprefill.block: got {}, need 16, 32, 64 or 128", block));
    if (max_budget > 0 && max_budget < min_budget)
      return bad_argument(fmt::format("flexprefill.max_budget: got {}, need 0 (none) or at least min_budget ({})", max_budget, min_budget));
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("flexprefill: decode is dense");
    if (x.grid.n_rows < 4 * block)
      return dense_plan(fmt::format("flexprefill: a chunk of {} rows, fewer than 4 blocks: the estimate would cost more than "
                                    "it saves", x.grid.n_rows));
    if (x.grid.n_keys <= std::max(2 * block, min_budget))
      return dense_plan(fmt::format("flexprefill: {} keys, within the least budget", x.grid.n_keys));
    const auto b = static_cast<std::int32_t>(block);
    const Grid& g = x.grid;
    const std::int64_t key_blocks = (g.n_keys + b - 1) / b;
    const std::int32_t row_blocks = (g.n_rows + b - 1) / b;
    auto* kept = context.scratch_as<std::uint8_t>(block::kSetSlot, static_cast<std::size_t>(g.heads * row_blocks * key_blocks));
    block::LineSums sums;
    block::BlockSums keys;
    std::vector<float> distance;
    {
      const Timed timed(context, Verb::estimate);
      sums = block::last_rows(x, b, context);
      keys = block::key_sums(x, b, context);
      distance = pattern_distance(x, sums, keys, context);
    }
    const auto aware = [&](int h) { return distance[static_cast<std::size_t>(h)] < divergence; };
    {
      const Timed timed(context, Verb::budget);
      const std::int32_t* covering = lines_that_cover(x, sums, context);
      context.threads().each(g.heads, [&](int h, int) {
        fixed_part(x, sums, h, aware(h) ? nullptr : covering + 2 * h, kept + std::int64_t{h} * row_blocks * key_blocks);
      });
    }
    if (std::any_of(distance.begin(), distance.end(), [&](float d) { return d < divergence; })) {
      block::PooledScores scores;
      {
        const Timed timed(context, Verb::estimate);
        scores = block::pooled_scores(x, block::row_sums(x, b, context), keys, context);
      }
      const Timed timed(context, Verb::budget);
      context.threads().each(g.heads, [&](int h, int) {
        if (aware(h)) aware_part(x, scores, h, kept + std::int64_t{h} * row_blocks * key_blocks);
      });
    }
    const Timed timed(context, Verb::budget);
    return plan_of(block::to_block_map(g, b, b, kept));
  }

 private:
  // How many columns, and how many distances, in descending order of their sums, stay within `mass` of all,
  // and one: [heads][2].
  const std::int32_t* lines_that_cover(const AttentionView& x, const block::LineSums& sums, Context& context) const {
    const auto n = static_cast<std::int32_t>(x.grid.n_keys);
    auto* count = context.scratch_as<std::int32_t>(block::kCountSlot, static_cast<std::size_t>(4 * x.grid.heads));
    std::int32_t* taken = count + 2 * x.grid.heads;
    for (const bool slash : {false, true}) {
      context.run<op::TopWeights>({.rows = x.grid.heads,
                                   .n = n,
                                   .weight = slash ? sums.slash : sums.vertical,
                                   .weight_row = n,
                                   .mass = static_cast<float>(mass),
                                   .taken = taken});
      for (std::int32_t h = 0; h < x.grid.heads; ++h) count[2 * h + slash] = 1 + taken[h];
    }
    return count;
  }

  // The vertical and slash blocks of head h, block 0 and the blocks of own keys. `covering`: of this head; null: the
  // least is kept.
  void fixed_part(const AttentionView& x, const block::LineSums& sums, std::int32_t h, const std::int32_t* covering,
                  std::uint8_t* set) const {
    const Grid& g = x.grid;
    const std::int64_t n = g.n_keys, key_blocks = (n + block - 1) / block, row_blocks = (g.n_rows + block - 1) / block;
    const std::int64_t most = std::min(key_blocks, max_budget > 0 ? std::max<std::int64_t>(1, max_budget / block) : key_blocks);
    const std::int64_t least = std::min(most, std::max<std::int64_t>(1, (min_budget > 0 ? min_budget : n / 16) / block));
    std::vector<float> work(static_cast<std::size_t>(key_blocks));
    std::vector<std::int32_t> list(static_cast<std::size_t>(key_blocks));
    // The blocks of a line's largest sums; they stand in `list`.
    const auto largest = [&](const float* line, bool slash) {
      const std::int64_t wanted = covering ? std::clamp(covering[slash] / block + 1, least, most) : least;
      std::vector<float> sum(static_cast<std::size_t>(key_blocks));
      block::block_totals(line, n, block, sum.data());
      return block::top_count(sum.data(), static_cast<std::int32_t>(key_blocks), 0, static_cast<std::int32_t>(wanted), work.data(), list.data());
    };
    std::fill(set, set + row_blocks * key_blocks, std::uint8_t{0});
    std::int32_t count = largest(sums.vertical + h * n, false);
    for (std::int64_t u = 0; u < row_blocks; ++u) {
      set[u * key_blocks] = 1;
      for (std::int32_t i = 0; i < count; ++i) set[u * key_blocks + list[static_cast<std::size_t>(i)]] = 1;
    }
    count = largest(sums.slash + h * n, true);
    const bool one = g.first_key % block == 0 && cover == "one";
    for (std::int64_t u = 0; u < row_blocks; ++u) {
      const std::int64_t first = g.first_key + u * block, last = std::min(first + block, g.first_key + g.n_rows) - 1;
      for (std::int64_t k = first / block; k <= last / block; ++k) set[u * key_blocks + k] = 1;
      for (std::int32_t i = 0; i < count; ++i)
        block::keep_diagonal(set + u * key_blocks, block, first, last, list[static_cast<std::size_t>(i)], one);
    }
  }

  // sqrt of the Jensen-Shannon divergence (natural log) between the pooled estimate of the last rows and
  // the block sums of their exact attention.
  std::vector<float> pattern_distance(const AttentionView& x, const block::LineSums& sums, const block::BlockSums& keys,
                                      Context& context) const {
    const std::int64_t n = x.grid.n_keys, key_blocks = (n + block - 1) / block;
    const AttentionView last = block::rows_of(x, x.grid.n_rows - static_cast<std::int32_t>(block), x.grid.n_rows);
    const block::PooledScores scores =
        block::pooled_scores(last, block::row_sums(last, static_cast<std::int32_t>(block), context), keys, context);
    std::vector<float> out(static_cast<std::size_t>(x.grid.heads));
    context.threads().each(x.grid.heads, [&](int h, int) {
      float* p = scores.row(h, 0);
      block::softmax(p, key_blocks, x.scale);
      const float* v = sums.vertical + std::int64_t{h} * n;
      double js = 0;
      for (std::int64_t b = 0; b < key_blocks; ++b) {
        // A column sums over as many rows.
        const double exact = block::sum_of(v + b * block, std::min(block, n - b * block)) / static_cast<double>(block);
        const double mean = 0.5 * (exact + p[b]);
        if (p[b] > 0) js += 0.5 * p[b] * std::log(p[b] / mean);
        if (exact > 0) js += 0.5 * exact * std::log(exact / mean);
      }
      out[static_cast<std::size_t>(h)] = static_cast<float>(std::sqrt(std::max(js, 0.0)));
    });
    return out;
  }

  // The pairs of largest pooled attention over all rows together, up to `mass` of it.
  void aware_part(const AttentionView& x, const block::PooledScores& scores, std::int32_t h, std::uint8_t* set) const {
    const auto size = static_cast<std::size_t>(scores.row_blocks * scores.key_blocks);
    std::vector<float> flat(size, 0.0f);
    for (std::int32_t u = 0; u < scores.row_blocks; ++u) {
      const std::int64_t all = causal_blocks(x.grid, static_cast<std::int32_t>(block), static_cast<std::int32_t>(block), u);
      float* to = flat.data() + u * scores.key_blocks;
      std::copy(scores.row(h, u), scores.row(h, u) + all, to);
      block::softmax(to, all, x.scale);
    }
    std::vector<float> work(size);
    std::vector<std::int32_t> list(size);
    const std::int32_t n = block::top_mass(flat.data(), static_cast<std::int32_t>(size), 0, static_cast<std::int32_t>(size), mass,
                                           block::TopMass::within, work.data(), list.data());
    for (std::int32_t i = 0; i < n; ++i) set[list[static_cast<std::size_t>(i)]] = 1;
  }
};

}  // namespace

LACUNA_METHOD(flexprefill, FlexPrefill)

}  // namespace lacuna::method
