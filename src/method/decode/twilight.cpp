// SPDX-License-Identifier: Apache-2.0
// Twilight: a wrapper that prunes what another selector keeps. Of the base's cells, 4-bit keys estimate the
// attention, and the fewest that carry `mass` of it stay.
//   est[h, c] = q_h . k4_c * scale,  p = softmax over the base's cells
//   kept: p > t, t the largest threshold with sum of p above t >= mass; equal p stay or go together
// Lin et al., NeurIPS 2025, arXiv:2502.02770.
#include <algorithm>

#include <fmt/format.h>

#include "block/candidates.h"
#include "block/slots.h"
#include "method/method.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"chunks", "a decoded token leaves out keys that the same token in a prompt sees: prefill is the base's"},
    {"sparse", "prefill is the base's, and the law looks at prefill; twilight_test looks at decode"},
    {"batch", "4 bits range over tiles of the cache's cells: a tile may hold keys of several sequences"},
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
        "The threshold is found by bisection; equal estimates stay or go together. The paper's 4 bits range over a key's "
        "channels; ours over 32 keys of a channel, which tells keys apart better where some channels are far larger than others. Weights of the output always come from the keys themselves. A group of "
        "query heads attends to the union of what its heads keep. Soft-caps and biases of the model do not enter the "
        "estimate. Preset paper: mass 0.85 (LongChat; 0.95 for models of Llama 3.1's class). Preset auto: mass 0.99; over dense it "
        "loses 0.6 % on SmolLM2 135M at 7,000 tokens and 0.5 % on Gemma 3 270M at 26,000 (docs/decisions/018).",
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
    // The candidates' words are of no more use: what each head keeps takes their place.
    context.run<op::KeepMass>({.rows = x.grid.heads, .n = a.score_row, .score = a.score, .score_row = a.score_row,
                               .scale = x.scale, .mass = static_cast<float>(mass), .kept = candidates,
                               .kept_row = static_cast<std::int64_t>(tiles)});
    std::vector<std::uint32_t> kept(tiles * static_cast<std::size_t>(x.hkv), 0u);
    for (std::int32_t h = 0; h < x.grid.heads; ++h)
      for (std::size_t t = 0; t < tiles; ++t)
        kept[static_cast<std::size_t>(h / group) * tiles + t] |= candidates[static_cast<std::size_t>(h) * tiles + t];
    Ranges out{.of = Ranges::Of::cells, .heads = x.hkv, .block_q = 1, .n_rows = 1, .n = x.cells.n, .row_ptr = {}, .ranges = {}};
    for (std::int32_t g = 0; g < x.hkv; ++g) {
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
      block::append_cells({kept.data() + tiles * static_cast<std::size_t>(g), tiles}, out.ranges);
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
    }
    return plan_of(std::move(out), from.why);
  }
};

}  // namespace

LACUNA_METHOD(twilight, Twilight)

}  // namespace lacuna::method
