// SPDX-License-Identifier: Apache-2.0
// A method: one small, immutable object that looks at a call and answers with a Plan.
//
// To add one: copy examples/skeleton/method.cpp to src/method/<family>/<slug>.cpp, write its test
// beside it, add one line to list.inc. docs/add-a-method.md walks through it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "kv/side.h"
#include "lacuna/result.h"
#include "method/model_facts.h"
#include "method/params.h"
#include "op/attention_view.h"
#include "op/context.h"
#include "op/keep_mass.h"
#include "op/side_scores.h"
#include "pattern/pattern.h"
#include "pattern/visibility.h"

namespace lacuna {

// How scores become weights: a kernel trait with the statistic of a row that it needs. Values join as
// methods need them; whether parts of a row may be computed apart and merged is the trait's to say.
enum class Weigh : std::uint8_t { softmax };
enum class Statistic : std::uint8_t { log_sum };
struct WeighTrait {
  Statistic statistic;
  bool merges;  // disjoint parts of a row, merged by the statistic, give the whole
};
constexpr WeighTrait trait_of(Weigh) { return {Statistic::log_sum, true}; }

// Which way a query head goes in a call: the number of one of the plan's patterns, or
using Route = std::int8_t;
constexpr Route kRouteFull = -1;  // everything the model allows
constexpr Route kRouteOff = -2;   // nothing: out 0, log-sum -inf

// What one call of one layer shall do, for one sequence. Made by a method, executed by the engine.
struct Plan {
  std::vector<Pattern> patterns = std::vector<Pattern>(1);  // at least one; Dense if nothing is said
  std::vector<Route> routes;  // per query head; empty = every head takes patterns[0]
  Weigh weigh = Weigh::softmax;
  // What op attend may leave out of what the patterns keep (op/attend.h, pv_skip): per query head, in log2
  // units, >= 0, infinity = nothing; empty = nothing anywhere. Counted as attended: the scores are made.
  std::vector<float> pv_skip;
  std::string why;            // for explain and reports: why this and not something sparser

  const Pattern& pattern() const { return patterns.front(); }
  Route route(std::int32_t q_head) const { return routes.empty() ? Route{0} : routes[static_cast<std::size_t>(q_head)]; }
};

// All heads take one pattern.
inline Plan plan_of(Pattern pattern, std::string why = {}) {
  Plan p;
  p.patterns.front() = std::move(pattern);
  p.why = std::move(why);
  return p;
}
inline Plan dense_plan(std::string why) { return plan_of(Dense{}, std::move(why)); }
// Nothing is left out.
inline bool is_dense(const Plan& p) {
  if (std::any_of(p.pv_skip.begin(), p.pv_skip.end(), [](float x) { return x < std::numeric_limits<float>::infinity(); })) return false;
  const auto dense = [&](Route r) {
    return r == kRouteFull || (r >= 0 && std::holds_alternative<Dense>(p.patterns[static_cast<std::size_t>(r)]));
  };
  return p.routes.empty() ? dense(0) : std::all_of(p.routes.begin(), p.routes.end(), dense);
}

// The laws of docs/laws.md that a method does not obey, each with its reason.
struct Exemption {
  std::string_view law, reason;
};

struct Card {
  std::string_view slug = {}, title = {}, paper = {}, family = {}, summary = {};
  std::string_view notes = {};                   // choices made where the source is unclear, limits
  bool reads_prompt_end = false;                 // a chunk's end stands for it unless announced
  bool shares_list_in_group = false;             // one list per KV head's group of query heads
  bool needs_profile = false;                    // refused without profile=PATH, but to calibrate
  std::string_view profile_from = {};            // the command that makes its profile; empty: lacuna calibrate SLUG
  std::string_view selects = "prefix";           // prefix | global: which keys a row's selection sees
  // For the laws of docs/laws.md. Specs are whole: "slug:key=value".
  std::string_view keep_all = {};                // spec that leaves nothing out, at any length
  std::string_view small = {};                   // spec that leaves something out at 512 tokens
  std::int64_t granule = 1;                      // rows, counted from a call's first, that decide together
  std::span<const Exemption> exemptions = {};
};

// What the engine is to choose among, call by call (engine/chooser.h): specs of methods, the first the
// preferred one, and the mean lost mass that a layer may show.
struct Candidates {
  std::vector<std::string> prefill, decode;
  double max_loss = 0.01;
};

struct Profile;    // method/profile.h
class Calibrator;  // method/calibrator.h

// Immutable once it is made: what changes from call to call comes in through the view, what lives on
// belongs to the session.
class Method {
 public:
  virtual ~Method() = default;
  virtual const Card& card() const = 0;
  // Every parameter, told once: default, parsing, ranges, help, docs and JSON come from it.
  virtual void params(ParamVisitor& v) = 0;
  // Named sets of parameters. "auto" (the default) scales constants with the length; "paper" has the
  // published ones.
  virtual Status preset(std::string_view name);
  // Rules across parameters; each parameter's own range is already checked.
  virtual Status check() const { return {}; }

  virtual Result<Plan> plan(const AttentionView& x, Context& context) const = 0;
  // What its choice is made from, as text, if that can be made once for several specs of the method, which then differ only in
  // how much of it they keep. Empty: each spec chooses by itself.
  virtual std::string estimate() const { return {}; }
  // One plan in which head h keeps what of[h] keeps; null: head h is not asked for, and what the plan says of it means nothing.
  // All have this method's card and estimate().
  virtual Result<Plan> plan_each(const AttentionView& x, std::span<const Method* const> of, Context& context) const;
  // What shall be kept beside the keys of a layer. Always the same for a method whose parameters are set.
  virtual SideSpec side(int layer) const;

  // Takes over what a profile says, checked (method/profile.h has the readers). Called for the file that a
  // method's own parameter `profile` names, once the other parameters stand; format and slug are right.
  // Whether the model is the profile's is seen to by the session.
  virtual Status use(const Profile& profile);
  // The model of the profile in use; null: no profile.
  const ModelFacts* calibrated_for() const { return calibrated_for_ ? &*calibrated_for_ : nullptr; }
  void set_calibrated_for(ModelFacts model) { calibrated_for_ = std::move(model); }  // the registry does

  // A fresh observer that makes this method's profile, as configured; null: it has nothing to calibrate.
  virtual std::unique_ptr<Calibrator> calibrator() const;

  // Set: this method leaves the choice to the engine, and its plan() is not asked.
  virtual std::optional<Candidates> candidates() const { return {}; }

  // Specs of the methods that this one asks, known once its profile stands; the registry makes them and hands
  // them over, in this order.
  virtual std::vector<std::string> parts() const { return {}; }
  virtual void take_parts(std::vector<std::unique_ptr<Method>>) {}

  // The method that this one wraps; null: it wraps none.
  virtual Method* inner() const { return nullptr; }

 private:
  std::optional<ModelFacts> calibrated_for_;
};

// A method around another: "base:...+wrapper:...". Its plan() asks the base's and changes the answer, or
// calls it on a changed view. A wrapper never stands alone, so inner() is set whenever plan() runs.
class Wrapper : public Method {
 public:
  // Why this wrapper, as configured, cannot wrap `base`: the reason alone, the registry adds both names.
  virtual Status accepts(const Method& base) const = 0;
  // Called once by the registry, after accepts().
  void wrap(std::unique_ptr<Method> base) { base_ = std::move(base); }
  Method* inner() const final { return base_.get(); }
  SideSpec side(int layer) const override { return base_->side(layer); }

 private:
  std::shared_ptr<Method> base_;  // shared, so that presets may assign a whole method to *this
};

struct MethodEntry {
  const Card* card = nullptr;
  std::unique_ptr<Method> (*make)() = nullptr;
  bool wraps = false;  // make() gives a Wrapper
};

}  // namespace lacuna

// Defines the entry that list.inc names: LACUNA_METHOD(slug, Class).
#define LACUNA_METHOD(slug, Class)                                            \
  const ::lacuna::MethodEntry& method_entry_##slug() {                        \
    static const Class instance;                                              \
    static const ::lacuna::MethodEntry entry{                                 \
        &instance.card(),                                                     \
        [] { return std::unique_ptr<::lacuna::Method>(std::make_unique<Class>()); }, \
        std::is_base_of_v<::lacuna::Wrapper, Class>};                         \
    return entry;                                                             \
  }
