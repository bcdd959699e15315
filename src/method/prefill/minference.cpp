// SPDX-License-Identifier: Apache-2.0
// MInference: a head has one of three shapes (block/head_shapes.h), whose places are found anew in each
// prompt. Which shape a head has is searched offline (block/calibrate/shape_search.h) and comes in a
// profile; without one all heads take the shape that is named.
// Jiang et al., NeurIPS 2024, arXiv:2407.02490.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "block/calibrate/shape_search.h"
#include "block/head_shapes.h"
#include "method/calibrator.h"
#include "method/head_shape_profile.h"
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
        "The estimate reads the last rows of every chunk, whether or not the prompt ends there; in a chunk of fewer "
        "than four times last_rows rows, heads that need one are dense, since it would cost more than it saves. Row "
        "blocks count from the chunk's first row. Lines are kept as whole ranges of a block's width, as in the "
        "official code, so more than the bare lines is attended. Block-sparse heads always keep the blocks of a row "
        "block's own keys (the official code forces none). `lacuna calibrate minference` searches the shape of each "
        "query head: candidates that touch keep of the visible keys (a-shape; block-sparse; vertical-slash with "
        "1/16, 1/4, 1/2 or 3/4 of that in columns) are judged by the attention mass they lose in 16 rows spread "
        "over a chunk; judged are chunks of 1,024 keys or more, each at least an eighth further in the prompt than "
        "the last. The official code counts wrong output entries instead. Within 0.1 % of mass the shape that is "
        "cheaper to plan stays. Sizes are kept as shares of the prompt beyond what is forced, means over what was "
        "judged; how much a share of distances costs depends on how they lie, so a prompt's density is near keep, "
        "not equal. With preset paper sizes are counts out of the official list, without those that leave nothing "
        "out of the text; their costs differ on short texts. A layer that never saw so many keys (a window of its "
        "own) stays dense. With a profile its sizes hold, and kind, keep, vertical and slash are for calibrating "
        "only; without one all heads take `kind`. Preset paper without a profile: the fallback of the official "
        "code, 1000 columns and 6096 distances, made for 100,000 tokens: below 8,000 it keeps nearly everything. "
        "Preset auto takes shares of the prompt: keep = 0.4 of the distances, a sixth of that of the columns; on SmolLM2 "
        "135M at 7,000 tokens that keeps 75 % of the pairs and loses 0.9 %, keep = 0.2 loses 4 %, and 5 % on Gemma 3 270M at "
        "26,000 (bench/results/intel-xeon-amx/methods-*.txt).",
    .reads_prompt_end = true,
    .selects = "global",
    .keep_all = "minference:slash=1073741824",
    .small = "minference:vertical=8:slash=23:sink=4:window=20:last_rows=16",
    .granule = 64,
    .exemptions = kExemptions,
};

using block::HeadKind;
using block::HeadShape;
using block::ShapeSearch;

class Observer final : public Calibrator {
 public:
  explicit Observer(const ShapeSearch::Settings& s) : settings_(s), search_(s) {}
  Status observe(const AttentionView& x, Context& context) override { return search_.add(x, context); }
  int prompt_tokens() const override { return 4096; }
  nlohmann::json save() const override { return search_.save(); }
  Status load(const nlohmann::json& state) override { return search_.load(state); }
  Result<nlohmann::json> finish() const override {
    if (!search_.any())
      return bad_argument(
          fmt::format("text too short: got prompts of up to {} tokens, need {} or more, read in chunks of {} rows or "
                      "more: give a longer text, a larger -c, or a smaller last_rows",
                      search_.longest(), ShapeSearch::kLeastKeys, 4 * settings_.lines.last_rows));
    nlohmann::json layers = nlohmann::json::array();
    for (int l = 0; l < search_.layers(); ++l) {
      nlohmann::json heads;  // null: never judged
      for (int h = 0; h < search_.heads(); ++h)
        if (const auto f = search_.found(l, h)) heads.push_back(head_shape_entry(*f));
      layers.push_back(std::move(heads));
    }
    return nlohmann::json{{"layers", search_.layers()},
                          {"heads", search_.heads()},
                          {"unit", settings_.of == ShapeSearch::Of::shares ? "share" : "count"},
                          {"shapes", std::move(layers)}};
  }

 private:
  ShapeSearch::Settings settings_;
  ShapeSearch search_;
};

class MInference final : public Method {
 public:
  std::string kind = "vertical-slash";
  double keep = 0.4;
  std::int64_t vertical = 0, slash = 0;
  std::int64_t sink = 30, window = 100;
  std::int64_t last_rows = 64;
  std::string search = "shares", profile;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(kind, "kind", "vertical-slash|block-sparse|a-shape", "shape of all heads, without a profile");
    v(keep, "keep", 0.0, 1.0,
      "share of the distances, and of a row block's blocks, where no count is given; calibrating: of the keys", true);
    v(vertical, "vertical", 0, std::int64_t{1} << 30, "columns kept; 0 = a sixth of keep * keys, at least 30");
    v(slash, "slash", 0, std::int64_t{1} << 30, "distances kept; 0 = keep * keys, at least 50");
    v(sink, "sink", 0, 1 << 20, "first keys, always kept");
    v(window, "window", 1, std::int64_t{1} << 30, "nearest distances, always kept");
    v(last_rows, "last_rows", 1, 4096, "rows at a chunk's end whose attention is the estimate");
    v(search, "search", "shares|counts",
      "candidates of the calibration: shares of the prompt, alike in cost, or the paper's counts");
    v(profile, "profile", "", "file of lacuna calibrate minference");
  }
  Status preset(std::string_view name) override {
    if (name == "auto") *this = MInference();
    if (name == "paper") {
      *this = MInference();
      vertical = 1000;
      slash = 6096;
      keep = 1.0;
      search = "counts";
    }
    return Method::preset(name);
  }
  std::unique_ptr<Calibrator> calibrator() const override {
    return std::make_unique<Observer>(ShapeSearch::Settings{
        .of = search == "counts" ? ShapeSearch::Of::counts : ShapeSearch::Of::shares, .keep = keep, .lines = lines()});
  }
  Status use(const Profile& p) override {
    auto list = head_shapes(p);
    if (!list.ok()) return list.error();
    found_ = std::move(list.value());
    return {};
  }
  Result<Plan> plan(const AttentionView& x, Context& context) const override;

 private:
  block::Lines lines() const { return {.last_rows = last_rows, .sink = sink, .window = window}; }
  // The shape of head h with the counts of this call; full where nothing would be left out.
  HeadShape shape_of(const AttentionView& x, std::int32_t h) const;
  HeadShape named_shape(std::int64_t n_keys) const;
  HeadShape profile_shape(const AttentionView& x, std::int32_t h) const;

  HeadShapeList found_;  // of the profile; no heads: there is none
};

HeadShape MInference::named_shape(std::int64_t n_keys) const {
  const auto share = static_cast<std::int64_t>(std::ceil(keep * static_cast<double>(n_keys)));
  if (kind == "a-shape")
    return {.kind = HeadKind::a_shape, .columns = std::max<std::int64_t>(sink, 1), .reach = std::max(window, share)};
  if (kind == "block-sparse") return {.kind = HeadKind::block_sparse, .columns = 0, .reach = 0, .share = keep};
  return {.kind = HeadKind::vertical_slash,
          .columns = vertical > 0 ? vertical : std::max<std::int64_t>(30, share / 6),
          .reach = slash > 0 ? slash : std::max<std::int64_t>(50, share)};
}

HeadShape MInference::profile_shape(const AttentionView& x, std::int32_t h) const {
  const ShapeSearch::Found f = found_.at(x.layer, h);
  const auto count = [&](double size, std::int64_t forced) {
    return std::max<std::int64_t>(
        1, found_.counts ? std::llround(size) : forced + std::llround(size * static_cast<double>(x.grid.n_keys)));
  };
  switch (f.kind) {
    case HeadKind::full:
      break;
    case HeadKind::a_shape:
      return {
          .kind = f.kind, .columns = std::max<std::int64_t>(1, std::llround(f.columns)), .reach = count(f.reach, 0)};
    case HeadKind::block_sparse:
      return {.kind = f.kind,
              .columns = 0,
              .reach = found_.counts ? count(f.reach, 0) : 1,
              .share = found_.counts ? 0.0 : f.reach};
    case HeadKind::vertical_slash:
      return {.kind = f.kind, .columns = count(f.columns, sink), .reach = count(f.reach, window)};
  }
  return {};
}

HeadShape MInference::shape_of(const AttentionView& x, std::int32_t h) const {
  const std::int64_t n = x.grid.n_keys;
  const HeadShape s = found_.heads > 0 ? profile_shape(x, h) : named_shape(n);
  if (n <= 2 * block::kShapeBlock) return {};
  if (s.kind == HeadKind::a_shape) return s.reach >= n ? HeadShape{} : s;
  if (x.grid.n_rows < 4 * last_rows) return {};  // an estimate would cost more than it saves
  if (s.kind == HeadKind::block_sparse) return s.share >= 1 || s.reach * block::kShapeBlock >= n ? HeadShape{} : s;
  return s.reach >= n ? HeadShape{} : s;
}

Result<Plan> MInference::plan(const AttentionView& x, Context& context) const {
  if (x.phase == Phase::decode) return dense_plan("minference: decode is dense");
  std::vector<HeadShape> shapes;
  for (std::int32_t h = 0; h < x.grid.heads; ++h) shapes.push_back(shape_of(x, h));
  const auto any = [&](HeadKind k) {
    return std::any_of(shapes.begin(), shapes.end(), [k](const HeadShape& s) { return s.kind == k; });
  };

  Plan p;
  p.patterns.clear();
  p.routes.assign(shapes.size(), kRouteFull);
  const auto take = [&](Pattern pattern, const auto& takes) {
    for (std::size_t h = 0; h < shapes.size(); ++h)
      if (takes(shapes[h])) p.routes[h] = static_cast<Route>(p.patterns.size());
    p.patterns.push_back(std::move(pattern));
  };
  const auto of = [](HeadKind k) { return [k](const HeadShape& s) { return s.kind == k; }; };
  if (any(HeadKind::vertical_slash)) take(block::stripes_of(x, shapes, lines(), context), of(HeadKind::vertical_slash));
  if (any(HeadKind::block_sparse)) take(block::blocks_of(x, shapes, context), of(HeadKind::block_sparse));
  for (std::size_t h = 0; h < shapes.size(); ++h)
    if (const HeadShape a = shapes[h]; a.kind == HeadKind::a_shape && p.routes[h] == kRouteFull)
      take(Window{.sink = a.columns, .window = a.reach},
           [&](const HeadShape& s) { return s.kind == a.kind && s.columns == a.columns && s.reach == a.reach; });
  if (p.patterns.empty())
    return dense_plan(
        x.grid.n_rows < 4 * last_rows
            ? fmt::format("minference: a chunk of {} rows, fewer than 4 * last_rows: the estimate would cost more than "
                          "it saves",
                          x.grid.n_rows)
            : fmt::format("minference: {} keys, all within reach", x.grid.n_keys));
  if (std::all_of(p.routes.begin(), p.routes.end(), [](Route r) { return r == 0; })) p.routes.clear();
  return p;
}

}  // namespace

LACUNA_METHOD(minference, MInference)

}  // namespace lacuna::method
