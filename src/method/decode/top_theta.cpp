// SPDX-License-Identifier: Apache-2.0
// Top-Theta: a decoded token attends to the keys whose scores lie above a constant, found offline for its layer, its head and
// the number of its keys, so that about `budget` of them do. A comparison where others search for the largest:
//   kept: the keys with  scale q . k > theta[layer][head][length nearest to the row's],  or the best one if none has
// 2025, arXiv:2502.08363.
#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "block/calibrate/score_quantile.h"
#include "block/estimate/key_scores.h"
#include "method/calibrator.h"
#include "method/method.h"
#include "method/profile.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"chunks", "a decoded token leaves out keys that the same token in a prompt sees: prefill is dense"},
    {"sparse", "prefill is dense, and the law looks at prefill; top_theta_test looks at decode"},
};

constexpr Card kCard{
    .slug = "top-theta",
    .title = "Top-Theta",
    .paper = "arXiv:2502.08363",
    .family = "decode",
    .summary = "Decode keeps the keys that score above a calibrated constant.",
    .notes =
        "Thresholds come from `lacuna calibrate top-theta`; without a profile `theta` serves all heads, and without that the "
        "method is dense. Here are the thresholds before the softmax, over decoded tokens; prompts are dense: single keys of "
        "single rows cost this engine more to list than to attend to. Not here: thresholds on probabilities, and the two "
        "compensations (of the denominator, and by the mean value); they are weights that do not add up to one, and this "
        "engine's softmax always does. Calibration runs dense, where the paper already leaves keys out, so that later layers "
        "see what they will see. budget, first_budget, keep and sigma are for calibrating, and say which rows are too short to "
        "leave anything out. Layers that calibration never saw with as many keys (a window of their own) stay dense. All keys "
        "are read to be compared; what is saved is values, and their products. Preset paper: 64 keys, 512 in the first two layers. "
        "Preset auto: a quarter of the keys; by a profile of another text it keeps 27 % and loses 2.8 % on SmolLM2 135M at 2,000 tokens.",
    .keep_all = "top-theta:theta=-1000",
    .small = "top-theta:theta=1",
    .exemptions = kExemptions,
};

constexpr double kNone = -1000;

class Observer final : public Calibrator {
 public:
  Observer(block::ScoreQuantile::Count count, std::int32_t rows, double sigma) : found_(std::move(count)), rows_(rows), sigma_(sigma) {}
  Status observe(const AttentionView& x, Context& context) override { return found_.add(x, rows_, context); }
  int prompt_tokens() const override { return 4096; }
  nlohmann::json save() const override { return found_.save(); }
  Status load(const nlohmann::json& state) override { return found_.load(state); }
  Result<nlohmann::json> finish() const override {
    nlohmann::json layers = nlohmann::json::array();
    bool any = false;
    for (int l = 0; l < found_.layers(); ++l) {
      nlohmann::json lengths = nlohmann::json::array(), theta = nlohmann::json::array();
      for (const auto& [number, band] : found_.bands(l)) {
        lengths.push_back(std::llround(band.mean_length()));
        nlohmann::json heads = nlohmann::json::array();
        for (int h = 0; h < found_.heads(); ++h) heads.push_back(band.threshold(h, sigma_));
        theta.push_back(std::move(heads));
      }
      any = any || !lengths.empty();
      layers.push_back({{"length", std::move(lengths)}, {"theta", std::move(theta)}});
    }
    if (!any)
      return bad_argument(fmt::format("text too short: got prompts of up to {} tokens, need more than the keys that shall pass: "
                                      "give a longer text, a larger -c, or a smaller budget", found_.longest()));
    return nlohmann::json{{"heads", found_.heads()}, {"layers", std::move(layers)}};
  }

 private:
  block::ScoreQuantile found_;
  std::int32_t rows_;
  double sigma_;
};

class TopTheta final : public Method {
 public:
  std::int64_t budget = 0, first_budget = 0, max_budget = 0, sample = 16;
  double keep = 0.25, sigma = 0.1, theta = kNone;
  std::string profile;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override {
    v(budget, "budget", 0, std::int64_t{1} << 30, "keys that shall pass, calibrating; 0 = keep * keys, at least 64");
    v(first_budget, "first_budget", 0, std::int64_t{1} << 30, "the same in the first two layers; 0 = as in the others");
    v(keep, "keep", 0.0, 1.0, "share of the keys that shall pass when budget = 0", true);
    v(sigma, "sigma", -10.0, 10.0, "standard deviations of its samples that are added to a threshold, calibrating");
    v(sample, "sample", 1, 1 << 20, "rows of a micro-batch that are sampled, calibrating");
    v(max_budget, "max_budget", 0, std::int64_t{1} << 30, "most keys that are kept, the newest of those that pass; 0 = any number");
    v(theta, "theta", kNone, -kNone, "threshold of all heads without a profile, natural-log units; the least = everything");
    v(profile, "profile", "", "file of lacuna calibrate top-theta");
  }
  Status preset(std::string_view name) override {
    if (name == "auto" || name == "paper") *this = TopTheta();
    if (name == "paper") {
      budget = 64;
      first_budget = 512;
    }
    return Method::preset(name);
  }
  std::unique_ptr<Calibrator> calibrator() const override {
    return std::make_unique<Observer>([m = *this](int layer, std::int64_t n) { return m.wanted(layer, n); },
                                      static_cast<std::int32_t>(sample), sigma);
  }
  Status use(const Profile& p) override;

  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    if (x.phase == Phase::prefill) return dense_plan("top-theta: prefill is dense");
    const std::int64_t n = x.grid.n_keys;
    const Thresholds* table = nullptr;
    if (!table_.empty()) {
      if (static_cast<std::size_t>(x.layer) < table_.size() && !table_[static_cast<std::size_t>(x.layer)].empty())
        table = &nearest(table_[static_cast<std::size_t>(x.layer)], n);
      if (!table || table->theta.size() != static_cast<std::size_t>(x.grid.heads))
        return dense_plan(fmt::format("top-theta: layer {} with {} heads was not calibrated", x.layer, x.grid.heads));
      if (n <= wanted(x.layer, n)) return dense_plan(fmt::format("top-theta: {} keys, within the budget", n));
    } else if (theta <= kNone) {
      return dense_plan("top-theta: no profile and no theta; 'lacuna calibrate top-theta' makes a profile");
    }
    std::vector<std::vector<Range>> kept(static_cast<std::size_t>(x.grid.heads));
    const Timed timed(context, Verb::estimate);
    const block::FewRows row{.q = x.q, .q_head = x.q_head, .q_row = x.q_row, .rows = 1, .first_key = x.grid.first_key};
    block::for_key_scores(x, row, context, [&](int h, const float* score, std::int64_t) {
      const double t = table ? table->theta[static_cast<std::size_t>(h)] : theta;
      kept[static_cast<std::size_t>(h)] = above(score, x.grid.first_key + 1, static_cast<float>(t / x.scale));
    });
    return plan_of(join_ranges(x.grid, 1, x.grid.heads, kept));
  }

 private:
  struct Thresholds {
    std::int64_t length = 0;
    std::vector<double> theta;  // [heads]
  };

  std::int64_t wanted(int layer, std::int64_t n) const {
    const std::int64_t count = layer < 2 && first_budget > 0 ? first_budget : budget;
    return count > 0 ? count : std::max<std::int64_t>(64, static_cast<std::int64_t>(keep * static_cast<double>(n)));
  }

  static const Thresholds& nearest(const std::vector<Thresholds>& of, std::int64_t n) {
    return *std::min_element(of.begin(), of.end(), [n](const Thresholds& a, const Thresholds& b) {
      return std::abs(a.length - n) < std::abs(b.length - n);
    });
  }

  // The keys of scores [n] above `least`, ascending, the newest max_budget of them. A score that is no number is above.
  std::vector<Range> above(const float* score, std::int64_t n, float least) const {
    std::vector<Range> out;
    std::int64_t room = max_budget > 0 ? max_budget : n;
    for (std::int64_t j = n - 1; j >= 0 && room > 0; --j) {
      if (score[j] <= least) continue;
      if (!out.empty() && out.back().begin == j + 1) --out.back().begin;
      else out.push_back({static_cast<std::int32_t>(j), static_cast<std::int32_t>(j) + 1});
      --room;
    }
    if (out.empty()) {
      const auto best = static_cast<std::int32_t>(std::max_element(score, score + n) - score);
      out.push_back({best, best + 1});
    }
    std::reverse(out.begin(), out.end());
    return out;
  }

  std::vector<std::vector<Thresholds>> table_;  // [layers], each in order of length; empty: no profile
};

Status TopTheta::use(const Profile& p) {
  constexpr std::size_t kMostLengths = 1024;
  auto heads = member(p.data, "data", "heads"), layers = member(p.data, "data", "layers");
  if (!heads.ok()) return heads.error();
  if (!layers.ok()) return layers.error();
  auto n_heads = as_int(*heads.value(), "data.heads", 1, 4096);
  if (!n_heads.ok()) return n_heads.error();
  if (n_heads.value() != p.model.hq)
    return bad_file(fmt::format("data.heads: got {}, need {}, the query heads of its model: calibrate again", n_heads.value(), p.model.hq));
  if (!layers.value()->is_array() || layers.value()->empty() || layers.value()->size() > static_cast<std::size_t>(p.model.n_layers))
    return bad_file(fmt::format("data.layers: need a list of 1 to {} entries, one per layer", p.model.n_layers));
  table_.clear();
  for (std::size_t l = 0; l < layers.value()->size(); ++l) {
    const std::string at = fmt::format("data.layers[{}]", l);
    auto lengths = member((*layers.value())[l], at, "length"), thetas = member((*layers.value())[l], at, "theta");
    if (!lengths.ok()) return lengths.error();
    if (!thetas.ok()) return thetas.error();
    const std::size_t n = lengths.value()->is_array() ? lengths.value()->size() : kMostLengths + 1;
    if (n > kMostLengths) return bad_file(fmt::format("{}.length: need a list of at most {} lengths", at, kMostLengths));
    auto length = as_ints(*lengths.value(), at + ".length", n, 1, std::int64_t{1} << 40);
    if (!length.ok()) return length.error();
    LACUNA_CHECK(check_list(*thetas.value(), at + ".theta", n));
    auto& of = table_.emplace_back();
    for (std::size_t i = 0; i < n; ++i) {
      auto theta = as_numbers((*thetas.value())[i], fmt::format("{}.theta[{}]", at, i), static_cast<std::size_t>(n_heads.value()), -1e6, 1e6);
      if (!theta.ok()) return theta.error();
      of.push_back({length.value()[i], std::move(theta.value())});
    }
  }
  return {};
}

}  // namespace

LACUNA_METHOD(top_theta, TopTheta)

}  // namespace lacuna::method
