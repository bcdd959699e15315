// SPDX-License-Identifier: Apache-2.0
// How a session keeps its contract (account/contract.h): opens it, asks it before a call, tells it after.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "engine/registry.h"
#include "engine/session.h"

namespace lacuna {
namespace {

constexpr int kWidest = 2;

// Makes a method keep more: half of the mass it leaves out, twice the share or the number it keeps. False: it keeps all it can, or
// has no such parameter.
class Widen final : public ParamVisitor {
 public:
  void operator()(std::int64_t& value, std::string_view name, std::int64_t, std::int64_t hi, std::string_view) override {
    if (name == "budget" && value > 0) set(value, std::min(hi, value * 2));
  }
  void operator()(double& value, std::string_view name, double, double hi, std::string_view, bool) override {
    if (name == "mass") set(value, hi - (hi - value) / 2);
    if (name == "keep") set(value, std::min(hi, value * 2));
  }
  void operator()(bool&, std::string_view, std::string_view) override {}
  void operator()(std::string&, std::string_view, std::string_view, std::string_view) override {}
  bool changed = false;

 private:
  template <class T>
  void set(T& value, T to) {
    changed = changed || to > value;
    value = to;
  }
};

}  // namespace

Status Session::Impl::open_contract() {
  for (const auto& [name, limit] : {std::pair{"max_loss", options.max_loss}, std::pair{"max_error", options.max_error}})
    if (!(limit >= 0 && limit < 1)) return bad_argument(fmt::format("{}: got {}, need 0 (none) or a share below 1", name, limit));
  if (options.max_loss > 0 && options.max_error > 0)
    return bad_argument(fmt::format("max_loss {} and max_error {}: a session keeps one of them", options.max_loss, options.max_error));
  const double limit = std::max(options.max_loss, options.max_error);
  if (limit == 0) return {};
  if (options.audit == Audit::off) options.audit = Audit::sample;
  for (int times = 1; times <= kWidest && !chooser; ++times) {
    auto made = make_method(options.method, {.profiles = !options.calibrate});
    if (!made.ok()) return made.error();
    bool changed = false;
    for (int i = 0; i < times; ++i) {
      Widen widen;
      for (Method* m : chain_of(*made.value())) m->params(widen);
      changed = widen.changed;
    }
    if (!changed || !made.value()->check().ok()) break;
    wider.push_back(std::move(made.value()));
  }
  renew_contract();
  return {};
}

void Session::Impl::renew_contract() {
  contract = std::make_unique<Contract>(std::max(options.max_loss, options.max_error), static_cast<int>(wider.size()));
}

const Method& Session::Impl::method_now() const {
  return heads && heads->level > 0 ? *wider[static_cast<std::size_t>(heads->level - 1)] : *method;
}

void Session::Impl::choose_heads(const AttendCall& c, const MaskEntry& mask) {
  contract_call = {.phase = mask.decode ? Phase::decode : Phase::prefill, .layer = c.layer, .heads = static_cast<int>(c.q.heads()), .layers = n_layers};
  for (const Segment& s : mask.visible.segments()) {
    if (s.rows() == 0) continue;
    const std::int64_t keys = mask.visible.visible_keys(s.row_end - 1);
    contract_call.keys = std::max(contract_call.keys, keys);
    contract_call.draws += static_cast<double>(std::clamp<std::int64_t>(keys - kMinAuditedKeys + 1, 0, s.rows())) / kAuditEvery;
  }
  contract_call.last = !mask.decode && prompt_tokens > 0 && contract_call.keys >= prompt_tokens;
  heads = &contract->choose(contract_call);
}

// The method's plan, but that some heads see everything.
Plan Session::Impl::with_dense_heads(const Plan& plan, std::int32_t hq) const {
  Plan out = plan;
  if (out.routes.empty()) out.routes.assign(static_cast<std::size_t>(hq), Route{0});
  for (std::size_t h = 0; h < out.routes.size(); ++h) {
    if (!heads->dense[h]) continue;
    out.routes[h] = kRouteFull;
    if (!out.pv_skip.empty()) out.pv_skip[h] = std::numeric_limits<float>::infinity();
  }
  return out;
}

// The share of `pairs` visible pairs of a head that runs keep, for the heads that are dense in this call or for the others.
void Session::Impl::tell_contract(const LoweredRuns& runs, std::int32_t hq, double pairs, bool of_dense) {
  for (std::int32_t h = 0; h < hq && pairs > 0; ++h) {
    const auto list = static_cast<std::size_t>(runs.heads == 1 ? 0 : h / runs.heads_per_list);
    if (heads->dense[static_cast<std::size_t>(h)] == of_dense) contract->kept(contract_call, h, runs.list_pairs[list] / pairs);
  }
}

}  // namespace lacuna
