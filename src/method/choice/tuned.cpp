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
        "that chooses is asked for all heads of a layer even if one takes it. While writing, the query heads of a KV head share "
        "the widest of their windows, as its keys are read once for all of them; where one of them has no window they are dense.",
    .profile_from = "lacuna tune",
    .keep_all = "tuned",
    .small = "tuned",
    .exemptions = kExemptions,
};

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
  }
  std::unique_ptr<Calibrator> calibrator() const override { return std::make_unique<Trials>(); }
  Result<Plan> plan(const AttentionView& x, Context& context) const override;

 private:
  TunedTable table_;
  std::vector<std::shared_ptr<const Method>> parts_;  // as table_.methods; shared, so that presets may assign
};

Result<Plan> Tuned::plan(const AttentionView& x, Context& context) const {
  if (parts_.empty()) return dense_plan("tuned: no profile, so dense; 'lacuna tune' makes one");
  const std::size_t band = band_of(table_.bands, x.grid.n_keys);
  if (band == table_.bands.size())
    return dense_plan(fmt::format("tuned: dense beyond {} keys, for which the profile was not made", table_.bands.back()));
  const auto choice = table_.at(band, x.layer);
  if (choice.size() != static_cast<std::size_t>(x.grid.heads)) return dense_plan("");  // dense, or another model's, as the session says
  std::vector<Plan> plans;
  std::vector<int> number(parts_.size(), -1), of;
  for (const std::uint8_t m : choice) {
    if (m > 0 && number[m] < 0) {
      auto plan = parts_[m]->plan(x, context);
      if (!plan.ok()) return plan.error();
      number[m] = static_cast<int>(plans.size());
      plans.push_back(std::move(plan.value()));
    }
    of.push_back(m > 0 ? number[m] : -1);
  }
  Plan joined = join_plans(plans, of);
  if (x.phase == Phase::decode) share_windows(joined, x.grid.heads, x.hkv);
  return joined;
}

}  // namespace

LACUNA_METHOD(tuned, Tuned)

}  // namespace lacuna::method
