// SPDX-License-Identifier: Apache-2.0
// Double Sparsity: a decoded token attends to the keys whose products look largest in a few channels,
// chosen offline because they carry most of every product.
//   est[h, c] = sum over the r label channels d of q_d k_d;  kept: the `budget` keys of largest est
// Yang et al. 2024, arXiv:2408.07092.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "block/budget/top_count.h"
#include "block/calibrate/channel_mean.h"
#include "block/candidates.h"
#include "block/slots.h"
#include "method/calibrator.h"
#include "method/method.h"
#include "method/profile.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"chunks", "a decoded token leaves out keys that the same token in a prompt sees: prefill is dense"},
    {"sparse", "prefill is dense, and the law looks at prefill; double_sparsity_test looks at decode"},
    {"gqa", "with share = on, a group chooses by the sum of its heads' estimates"},
    {"head_slice", "with share = on, a group chooses by the sum of its heads' estimates"},
};

constexpr Card kCard{
    .slug = "double-sparsity",
    .title = "Double Sparsity",
    .paper = "arXiv:2408.07092",
    .family = "decode",
    .summary = "Decode reads the keys that score highest in a few calibrated channels.",
    .notes =
        "Channel lists come from `lacuna calibrate double-sparsity` (one per layer and KV head); without a profile the "
        "channels are spread evenly, which is a baseline and no more. The calibration sees queries and keys after the "
        "rotation, of which it sums |q_d k_d| over tokens (the published script for this statistic keeps its last text "
        "only), or |q_d|, or |k_d|; a profile names the layout of the rotation and is refused on another. share = on takes "
        "one list per KV head, by the sum of the group's estimates (the published fast path has no GQA). Labels have the "
        "cache's precision (label_bits of the paper's code is not offered), and prefetching a next layer's keys from slower "
        "memory has no place in this host. Preset paper: a sixteenth of the keys, no list shared. Preset auto: 0.3 of the "
        "keys, at least 256, between 0.25 and 0.5, which lose 1.4 % and 0.3 % on SmolLM2 135M at 7,000 tokens, by a profile of "
        "another text (bench/results/intel-xeon-amx/methods-smollm2.txt). The first `layer_start` layers and all prefill are dense.",
    .shares_list_in_group = true,
    .keep_all = "double-sparsity:budget=1073741824",
    .small = "double-sparsity:budget=64:channels=8:layer_start=0:share=off",
    .exemptions = kExemptions,
};

constexpr std::int64_t kMostChannels = 1024;

class Observer final : public Calibrator {
 public:
  explicit Observer(block::ChannelMean::Of of) : mean_(of, block::ChannelMean::Per::kv_head) {}
  Status observe(const AttentionView& x, Context&) override {
    return mean_.add(x.layer, {x.grid, x.hkv, x.dk, x.q, x.q_head, x.q_row, x.k});
  }
  nlohmann::json save() const override { return mean_.save(); }
  Status load(const nlohmann::json& state) override { return mean_.load(state); }
  Result<nlohmann::json> finish() const override {
    constexpr std::int64_t kLeastTokens = 512;
    if (mean_.tokens() < kLeastTokens)
      return bad_argument(fmt::format("text too short: got {} tokens, need {} or more", mean_.tokens(), kLeastTokens));
    nlohmann::json order = nlohmann::json::array();
    for (int l = 0; l < mean_.layers(); ++l)
      for (int h = 0; h < mean_.heads(); ++h) order.push_back(mean_.order(l, h));
    return nlohmann::json{{"layers", mean_.layers()}, {"heads", mean_.heads()}, {"order", order}};
  }

 private:
  block::ChannelMean mean_;
};

class DoubleSparsity final : public Method {
 public:
  std::int64_t channels = 16;
  std::int64_t budget = 0;
  double keep = 0.3;
  std::int64_t layer_start = 2;
  bool share = true;
  std::string statistic = "qk", profile;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(channels, "channels", 1, kMostChannels, "label channels per key, at most its channels; the paper takes a sixteenth of them");
    v(budget, "budget", 0, std::int64_t{1} << 30, "keys read per token; 0 = keep * keys, at least 256");
    v(keep, "keep", 0.0, 1.0, "share of the keys read when budget = 0", true);
    v(layer_start, "layer_start", 0, 4096, "first layer that is not dense");
    v(share, "share", "one list per KV head, by the sum over its query heads");
    v(statistic, "statistic", "qk|q|k", "what the calibration sums over tokens: |q k|, |q| or |k|");
    v(profile, "profile", "", "file of lacuna calibrate double-sparsity");
  }
  Status preset(std::string_view name) override {
    if (name == "auto") keep = 0.3, budget = 0, share = true, layer_start = 2;
    if (name == "paper") keep = 0.0625, budget = 0, share = false, layer_start = 2;
    return Method::preset(name);
  }
  std::unique_ptr<Calibrator> calibrator() const override {
    using Of = block::ChannelMean::Of;
    return std::make_unique<Observer>(statistic == "q" ? Of::query : statistic == "k" ? Of::key : Of::product);
  }
  Status use(const Profile& p) override {
    const auto dk = static_cast<std::size_t>(p.model.dk);
    if (channels > p.model.dk)
      return bad_argument(fmt::format("double-sparsity.channels: got {}, need 1..{}: the model's keys have no more", channels, p.model.dk));
    auto n_layers = member(p.data, "data", "layers"), n_heads = member(p.data, "data", "heads"), order = member(p.data, "data", "order");
    for (const auto* part : {&n_layers, &n_heads, &order})
      if (!part->ok()) return part->error();
    // The model of the file is held against the calls; the lists must be of that model.
    auto layers = as_int(*n_layers.value(), "data.layers", 1, p.model.n_layers);
    auto heads = as_int(*n_heads.value(), "data.heads", 1, 1024);
    if (!layers.ok()) return layers.error();
    if (!heads.ok()) return heads.error();
    if (heads.value() != p.model.hkv)
      return bad_file(fmt::format("data.heads: got {}, need {}, the KV heads of its model: calibrate again", heads.value(),
                                  p.model.hkv));
    LACUNA_CHECK(check_list(*order.value(), "data.order", static_cast<std::size_t>(layers.value() * heads.value())));
    lists_.clear();
    heads_ = static_cast<std::int32_t>(heads.value());
    for (std::size_t i = 0; i < order.value()->size(); ++i) {
      auto list = as_permutation((*order.value())[i], fmt::format("data.order[{}]", i), dk);
      if (!list.ok()) return list.error();
      for (std::int64_t c = 0; c < channels; ++c) lists_.push_back(static_cast<std::int16_t>(list.value()[static_cast<std::size_t>(c)]));
    }
    return {};
  }
  SideSpec side(int layer) const override {
    if (layer < layer_start) return {};
    SideSpec s{.labels = static_cast<std::int32_t>(channels)};
    const std::size_t at = static_cast<std::size_t>(layer) * static_cast<std::size_t>(heads_ * channels);
    if (heads_ > 0 && at < lists_.size()) {
      s.label_heads = heads_;
      s.channels = lists_.data() + at;
    }
    return s;
  }

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::prefill) return dense_plan("double-sparsity: prefill is dense");
    if (x.layer < layer_start) return dense_plan("double-sparsity: one of the first layers");
    if (!x.cells.side.labels.data) return dense_plan("double-sparsity: this cache keeps no labels (fewer channels than asked for?)");
    const std::int64_t count = budget > 0 ? budget : std::max<std::int64_t>(256, static_cast<std::int64_t>(keep * static_cast<double>(x.grid.n_keys)));
    if (count >= x.grid.n_keys) return dense_plan(fmt::format("double-sparsity: {} keys, within the budget", x.grid.n_keys));

    op::LabelScores::Args a;
    {
      const Timed timed(context, Verb::estimate);
      x.ask(a);
      a.labels = x.cells.side.labels;
      a.score_row = a.score_head = x.cells.visible_row * kTileKeys;
      a.score = context.scratch_as<float>(block::kScoreSlot, static_cast<std::size_t>(x.grid.heads * a.score_head));
      context.run<op::LabelScores>(a);
    }
    const Timed timed(context, Verb::budget);
    const std::int32_t lists = share ? x.hkv : x.grid.heads, group = x.grid.heads / lists;
    const auto tiles = static_cast<std::size_t>(x.cells.visible_row);
    std::vector<std::uint32_t> kept(tiles * static_cast<std::size_t>(lists), 0u);
    const auto n = static_cast<std::int32_t>(tiles * kTileKeys);  // past the last cell: -infinity
    const auto most = static_cast<std::int32_t>(std::min<std::int64_t>(count, n));
    const auto workers = static_cast<std::size_t>(context.threads().workers());
    auto* work = context.scratch_as<float>(block::kWorkSlot, workers * tiles * kTileKeys);
    context.threads().each(lists, [&](int l, int worker) {
      float* score = a.score + std::int64_t{l} * group * a.score_head;
      for (std::int32_t h = 1; h < group; ++h)
        for (std::int32_t c = 0; c < n; ++c) score[c] += score[h * a.score_head + c];
      const block::CountRule rule{.count = most};
      block::Threshold end = block::threshold(score, n, rule, work + std::int64_t{worker} * n);
      if (end.value == -std::numeric_limits<float>::infinity()) end.equal = 0;  // what this row does not see
      for (std::size_t t = 0; t < tiles; ++t)
        kept[tiles * static_cast<std::size_t>(l) + t] = block::take_tile(score + t * kTileKeys, end);
    });
    Ranges out{.of = Ranges::Of::cells, .heads = lists, .block_q = 1, .n_rows = 1, .n = x.cells.n, .row_ptr = {}, .ranges = {}};
    for (std::int32_t l = 0; l < lists; ++l) {
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
      block::append_cells({kept.data() + tiles * static_cast<std::size_t>(l), tiles}, out.ranges);
      out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
    }
    return plan_of(std::move(out));
  }

 private:
  std::int32_t heads_ = 0;
  std::vector<std::int16_t> lists_;  // [layers][heads_][channels]
};

}  // namespace

LACUNA_METHOD(double_sparsity, DoubleSparsity)

}  // namespace lacuna::method
