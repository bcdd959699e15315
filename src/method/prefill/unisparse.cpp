// SPDX-License-Identifier: Apache-2.0
// UniSparse: a small attention among composite tokens, means of neighbouring tokens and of neighbouring heads, says which
// key blocks of the kernel carry the mass:
//   P = softmax over composite keys n of (mean of `rate` queries) . (mean of `rate` keys) * scale
//   S[row block, key block] = sum of P over their composites; the fewest key blocks that carry `mass` of a row block's S
// arXiv:2512.14082.
#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "block/budget/mass_blocks.h"
#include "block/estimate/pooled.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Card kCard{
    .slug = "unisparse",
    .title = "UniSparse",
    .paper = "arXiv:2512.14082",
    .family = "prefill",
    .summary = "Key blocks by mass, from attention among means of neighbouring tokens and heads.",
    .notes =
        "There is no official code, and the paper's rates were not at hand: all of them are parameters. One rate serves queries "
        "and keys. Composites count from the chunk's first row and from key 0; a composite key that holds a row's own key "
        "counts the keys up to the composite query's last one. Only heads that share a KV head are averaged: of head_group and "
        "the heads of a group the greatest common divisor is taken, so a model without groups has its heads apart, and with "
        "head_group above 1 chooses otherwise than one whose heads share the same keys. Block 0 is kept as sink says, blocks of "
        "own keys always. Preset paper: mass 0.95, rate 16, two heads, blocks of 128. Preset auto aims at 1 % of lost mass: on "
        "SmolLM2 135M at 7,000 tokens it keeps 70 % of the pairs.",
    .keep_all = "unisparse:mass=1",
    .small = "unisparse:mass=0.5:rate=16",
    .granule = 128,
};

class UniSparse final : public Method {
 public:
  double mass = 0.999;
  std::int64_t rate = 8, head_group = 1, block = 64, sink = 1, window = 1;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mass, "mass", 0.0, 1.0, "share of the estimated attention to keep; 1 = everything", true);
    v(rate, "rate", 1, 128, "tokens of a composite: a divisor of block");
    v(head_group, "head_group", 1, 64, "neighbouring query heads of one KV head that share their scores");
    v(block, "block", 64, 128, "rows and keys of a block: 64 or 128");
    v(sink, "sink", 0, std::int64_t{1} << 20, "first keys, always kept, in whole blocks");
    v(window, "window", 1, std::int64_t{1} << 30, "newest keys of every row, always kept, in whole blocks");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = UniSparse();
    if (name == "paper") {
      mass = 0.95;
      rate = 16;
      head_group = 2;
      block = 128;
    }
    return Method::preset(name);
  }
  Status check() const override {
    if (block != 64 && block != 128) return bad_argument(fmt::format("unisparse.block: got {}, need 64 or 128", block));
    if (block % rate != 0) return bad_argument(fmt::format("unisparse.rate: got {}, need a divisor of block ({})", rate, block));
    return {};
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::decode) return dense_plan("unisparse: decode is dense");
    if (mass >= 1) return dense_plan("unisparse: mass = 1 keeps everything");
    if (x.grid.n_keys < 2 * block)
      return dense_plan(fmt::format("unisparse: {} keys, fewer than two blocks of {}", x.grid.n_keys, block));
    if (x.grid.n_rows < rate) return dense_plan(fmt::format("unisparse: {} rows, fewer than the rate ({})", x.grid.n_rows, rate));
    const float* of_blocks = nullptr;
    {
      const Timed timed(context, Verb::estimate);
      of_blocks = block_mass(x, context);
    }
    const Timed timed(context, Verb::budget);
    return plan_of(block::keep_mass(
        {.grid = x.grid, .block = static_cast<std::int32_t>(block), .mass = mass, .sink = sink, .window = window}, of_blocks, context));
  }

 private:
  // The estimated mass, [heads][row blocks][key blocks].
  const float* block_mass(const AttentionView& x, Context& context) const {
    const auto width = static_cast<std::int32_t>(rate);
    const auto together = static_cast<std::int32_t>(std::gcd(head_group, std::int64_t{x.grid.heads / x.hkv}));
    AttentionView merged = x;
    merged.grid.heads = x.grid.heads / together;
    const block::BlockSums rows = mean_of_heads(block::row_sums(x, width, context), x.grid.heads, together, context);
    const block::PooledScores scores = block::pooled_scores(merged, rows, block::key_sums(x, width, context), context);

    const std::int64_t key_blocks = (x.grid.n_keys + block - 1) / block, row_blocks = (x.grid.n_rows + block - 1) / block;
    const std::int64_t per_head = row_blocks * key_blocks, ratio = block / rate;
    float* mass_of = context.scratch_as<float>(block::kBlockMassSlot, static_cast<std::size_t>(x.grid.heads * per_head));
    context.threads().each(merged.grid.heads, [&](int h, int) {
      float* first = mass_of + h * together * per_head;
      std::fill(first, first + per_head, 0.0f);
      for (std::int32_t m = 0; m < scores.row_blocks; ++m) {
        float* p = scores.row(h, m);
        const std::int64_t seen = std::min(scores.key_blocks, causal_blocks(x.grid, width, width, m));
        block::softmax(p, seen, x.scale);
        float* to = first + m / ratio * key_blocks;
        for (std::int64_t n = 0; n < seen; ++n) to[n / ratio] += p[n];
      }
      for (int other = 1; other < together; ++other) std::copy(first, first + per_head, first + other * per_head);
    });
    return mass_of;
  }

  // Sums of `together` neighbouring heads each, as their mean.
  static block::BlockSums mean_of_heads(block::BlockSums rows, std::int32_t heads, std::int32_t together, Context& context) {
    if (together == 1) return rows;
    const std::int64_t size = rows.blocks() * rows.dim;
    float* mean = context.scratch_as<float>(block::kGroupSlot, static_cast<std::size_t>(heads / together * size));
    for (std::int64_t h = 0; h < heads / together; ++h)
      for (std::int64_t i = 0; i < size; ++i) {
        float sum = 0;
        for (std::int64_t other = 0; other < together; ++other) sum += rows.sum[(h * together + other) * size + i];
        mean[h * size + i] = sum / static_cast<float>(together);
      }
    rows.sum = mean;
    return rows;
  }
};

}  // namespace

LACUNA_METHOD(unisparse, UniSparse)

}  // namespace lacuna::method
