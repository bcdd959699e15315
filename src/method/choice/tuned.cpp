// SPDX-License-Identifier: Apache-2.0
// tuned: for every length band, layer and query head the method that `lacuna tune` found cheapest within a limit
// of lost mass: the idea of MoA (arXiv:2406.14909), HyLRA (arXiv:2602.00777) and per-head thresholds, made
// general. The profile says which; here the methods are asked and their plans joined.
#include <algorithm>
#include <memory>
#include <vector>

#include <fmt/format.h>

#include "method/calibrator.h"
#include "method/join_plans.h"
#include "method/method.h"
#include "method/profile.h"
#include "method/trial_sums.h"
#include "method/tuned_table.h"

namespace lacuna::method {
namespace {

constexpr Exemption kExemptions[] = {
    {"sparse", "without a profile it is dense; tuned_test.cpp tries the laws with one"},
};

constexpr Card kCard{
    .slug = "tuned",
    .title = "Tuned profile",
    .paper = "Lacuna's own",
    .family = "choice",
    .summary = "Each head its own method and size, by layer and length, as lacuna tune found them.",
    .notes =
        "Dense without a profile, in layers the profile does not name, and in calls of more keys than its last band. A method "
        "that chooses is asked once per layer, for all its heads even if one takes it; sampleattention for those alone that take it, "
        "each with its own masses. While writing, the query heads of a KV head share the widest of their windows, as its keys are "
        "read once for all of them; where one of them has no window they are dense.",
    .profile_from = "lacuna tune",
    .keep_all = "tuned",
    .small = "tuned",
    .exemptions = kExemptions,
};

// One plan serves heads of both.
bool together(const Method& a, const Method& b) {
  return a.card().slug == b.card().slug && !a.estimate().empty() && a.estimate() == b.estimate();
}

// Keeps the sums of what the session tried.
class Trials final : public Calibrator {
 public:
  std::vector<std::string> trials() const override { return sums_.methods; }
  void tried(const Trial& trial) override { sums_.add(trial); }
  Status observe(const AttentionView&, Context&) override { return {}; }
  nlohmann::json save() const override { return as_json(sums_); }
  Status load(const nlohmann::json& state) override {
    auto sums = trial_sums(state, "calibration.state");
    if (!sums.ok()) return sums.error();
    sums_ = std::move(sums.value());
    return {};
  }
  Result<nlohmann::json> finish() const override {
    return as_json(sums_);
  }

 private:
  TrialSums sums_;
};

class Tuned final : public Method {
 public:
  std::string profile;

  const Card& card() const override { return kCard; }
  void params(ParamVisitor& v) override { v(profile, "profile", "", "file of lacuna tune"); }
  Status use(const Profile& p) override {
    auto table = tuned_table(p);
    if (!table.ok()) return table.error();
    table_ = std::move(table.value());
    return {};
  }
  std::vector<std::string> parts() const override { return table_.methods; }
  void take_parts(std::vector<std::unique_ptr<Method>> made) override {
    parts_.assign(std::make_move_iterator(made.begin()), std::make_move_iterator(made.end()));
    asked_.clear();
    for (std::size_t m = 0; m < parts_.size(); ++m) {
      std::size_t first = 0;
      while (first < m && !together(*parts_[first], *parts_[m])) ++first;
      asked_.push_back(first);
    }
  }
  std::unique_ptr<Calibrator> calibrator() const override { return std::make_unique<Trials>(); }
  Result<Plan> plan(const AttentionView& x, Context& context) const override;

 private:
  TunedTable table_;
  std::vector<std::shared_ptr<const Method>> parts_;  // as table_.methods; shared, so that presets may assign
  std::vector<std::size_t> asked_;                    // of each part: the one that is asked for its heads
};

Result<Plan> Tuned::plan(const AttentionView& x, Context& context) const {
  if (parts_.empty()) return dense_plan("tuned: no profile, so dense; 'lacuna tune' makes one");
  const std::size_t band = band_of(table_.bands, x.grid.n_keys);
  if (band == table_.bands.size())
    return dense_plan(fmt::format("tuned: dense beyond {} keys, for which the profile was not made", table_.bands.back()));
  const auto choice = table_.at(band, x.layer);
  if (choice.size() != static_cast<std::size_t>(x.grid.heads)) return dense_plan("");  // dense, or another model's, as the session says
  std::vector<Plan> plans;
  std::vector<int> of(choice.size(), -1);
  for (std::size_t h = 0; h < choice.size(); ++h) {
    if (choice[h] == 0 || of[h] >= 0) continue;
    const std::size_t asked = asked_[choice[h]];
    std::vector<const Method*> heads(choice.size());
    for (std::size_t g = h; g < choice.size(); ++g)
      if (choice[g] > 0 && asked_[choice[g]] == asked) {
        heads[g] = parts_[choice[g]].get();
        of[g] = static_cast<int>(plans.size());
      }
    auto plan = parts_[asked]->plan_each(x, heads, context);
    if (!plan.ok()) return plan.error();
    plans.push_back(std::move(plan.value()));
  }
  Plan joined = join_plans(plans, of);
  if (x.phase == Phase::decode) share_windows(joined, x.grid.heads, x.hkv);
  return joined;
}

}  // namespace

LACUNA_METHOD(tuned, Tuned)

}  // namespace lacuna::method
