// SPDX-License-Identifier: Apache-2.0
// Twilight: a wrapper that prunes what another selector keeps. Of the base's cells, 4-bit keys estimate the
// attention, and the fewest that carry `mass` of it stay.
//   est[h, c] = q_h . k4_c * scale,  p = softmax over the base's cells
//   kept: p > t, t the largest threshold with sum of p above t >= mass; equal p stay or go together
// Lin et al., NeurIPS 2025, arXiv:2502.02770.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "block/budget/top_mass.h"
#include "block/candidates.h"
#include "block/row_softmax.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"chunks", "a decoded token leaves out keys that the same token in a prompt sees: prefill is the base's"},
    {"sparse", "prefill is the base's, and the law looks at prefill; twilight_test looks at decode"},
    {"gqa", "a group attends to the union of what its heads keep"},
    {"head_slice", "a group attends to the union of what its heads keep"},
};

constexpr Card kCard{
    .slug = "twilight",
    .title = "Twilight",
    .paper = "arXiv:2502.02770",
    .family = "decode",
    .summary = "Prunes a selector's keys to those that carry the mass, by 4-bit keys.",
    .notes =
        "Wraps any method; with dense the candidates are all keys. Only decoded tokens are pruned: a prompt is the base's. "
        "The share of the mass is found exactly, by a histogram of the weights instead of bisecting the threshold; "
        "equal estimates stay or go together, as there. Weights of the output always come from the keys themselves. A group of "
        "query heads attends to the union of what its heads keep. Soft-caps and biases of the model do not enter the "
        "estimate. Preset paper: mass 0.85 (LongChat; 0.95 for models of Llama 3.1's class). Preset auto: mass 0.99; over dense it "
        "loses 0.6 % on SmolLM2 135M at 7,000 tokens, and 8.7 % on Gemma 3 270M at 26,000, whose keys 4 bits do not tell apart "
        "well enough (bench/results/intel-xeon-amx/methods-*.txt).",
    .shares_list_in_group = true,
    .keep_all = "dense+twilight:mass=1",
    .small = "dense+twilight:mass=0.6:layer_start=0",
    .exemptions = kExemptions,
};

class Twilight final : public Wrapper {
 public:
  double mass = 0.99;
  std::int64_t layer_start = 2;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(mass, "mass", 0.0, 1.0, "share of the candidates' estimated attention that is kept", true);
    v(layer_start, "layer_start", 0, 4096, "first layer in which keys are pruned");
  }
  Status preset(std::string_view name) override {
    if (name == "auto") mass = 0.99, layer_start = 2;
    if (name == "paper") mass = 0.85, layer_start = 2;
    return Method::preset(name);
  }
  Status accepts(const Method& base) const override {
    if (base.card().slug == "twilight") return unsupported("what it keeps is pruned already");
    return {};
  }
  SideSpec side(int layer) const override {
    SideSpec s = inner()->side(layer);
    s.int4 = s.int4 || layer >= layer_start;
    return s;
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    auto base = inner()->plan(x, context);
    if (!base.ok() || x.phase == Phase::prefill || x.layer < layer_start || mass >= 1.0) return base;
    const Plan& from = base.value();
    if (!x.cells.side.int4.data) return base;  // this cache keeps no 4-bit keys: the base's choice stands
    const auto tiles = static_cast<std::size_t>(x.cells.visible_row);
    const std::int32_t group = x.grid.heads / x.hkv;
    const std::size_t words_of_all = tiles * static_cast<std::size_t>(x.grid.heads);
    auto* candidates = context.scratch_as<std::uint32_t>(block::kKeptSlot, words_of_all);
    op::Int4Scores::Args a;
    {
      const Timed timed(context, Verb::estimate);
      for (std::int32_t h = 0; h < x.grid.heads; ++h) {
        const Route r = from.route(h);
        const std::span<std::uint32_t> words{candidates + tiles * static_cast<std::size_t>(h), tiles};
        const Pattern* some = r == kRouteFull || r == kRouteOff ? nullptr : &from.patterns[static_cast<std::size_t>(r)];
        if (r == kRouteOff) std::fill(words.begin(), words.end(), 0u);
        else block::candidate_words(x, some, h, words);
      }
      x.ask(a);
      a.visible = candidates;
      a.visible_head = static_cast<std::int64_t>(tiles);
      a.keys = x.cells.side.int4;
      a.score_row = a.score_head = static_cast<std::int64_t>(tiles) * kTileKeys;
      a.score = context.scratch_as<float>(block::kScoreSlot, static_cast<std::size_t>(x.grid.heads * a.score_head));
      context.run<op::Int4Scores>(a);
    }
    const Timed timed(context, Verb::budget);
    std::vector<std::uint32_t> kept(tiles * static_cast<std::size_t>(x.hkv), 0u);
    const std::size_t row = tiles * kTileKeys, workers = static_cast<std::size_t>(context.threads().workers());
    auto* work = context.scratch_as<float>(block::kWorkSlot, workers * row);
    context.threads().each(x.hkv, [&](int g, int worker) {
      for (std::int32_t h = g * group; h < (g + 1) * group; ++h)
        prune(a.score + h * a.score_head, x.scale, {candidates + tiles * static_cast<std::size_t>(h), tiles},
              {kept.data() + tiles * static_cast<std::size_t>(g), tiles},
              work + static_cast<std::size_t>(worker) * row);
    });
    Ranges out{.of = Ranges::Of::cells, .heads = x.hkv, .block_q = 1, .n_rows = 1, .n = x.cells.n, .row_ptr = {}, .ranges = {}};
    for (std::int32_t g = 0; g < x.hkv; ++g) {
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
      block::append_cells({kept.data() + tiles * static_cast<std::size_t>(g), tiles}, out.ranges);
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
    }
    return plan_of(std::move(out), from.why);
  }

 private:
  // Adds to `kept` the candidates that carry the mass of one head's estimate. The tiles that have any
  // move together in `score`, which is overwritten; `work` has room for a row of it.
  void prune(float* score, float scale, std::span<const std::uint32_t> candidates, std::span<std::uint32_t> kept,
             float* work) const {
    std::int32_t n = 0;
    for (std::size_t t = 0; t < candidates.size(); ++t) {
      if (!candidates[t]) continue;
      if (score + n != score + t * kTileKeys) std::copy_n(score + t * kTileKeys, kTileKeys, score + n);
      n += kTileKeys;
    }
    if (n == 0) return;
    const float top = block::max_of(score, n);
    block::Threshold end;
    if (top == std::numeric_limits<float>::infinity()) {  // cannot be judged: all stay
      end = {-top, n};
      std::fill(score, score + n, 0.0f);
    } else {
      // Not divided by their sum: the rule knows it. Cells that are no candidates are -infinity and weigh 1e-38.
      block::exp_terms(score, n, top, scale);
      end = block::threshold(score, n, block::MassRule{.top = block::order_of(1.0f), .mass = mass}, work);
      if (end.equal > 0) end.equal = n;  // equal estimates stay together
    }
    for (std::size_t t = 0; t < candidates.size(); ++t)
      if (candidates[t]) {
        kept[t] |= candidates[t] & block::take_tile(score, end);
        score += kTileKeys;
      }
  }
};

}  // namespace

LACUNA_METHOD(twilight, Twilight)

}  // namespace lacuna::method
