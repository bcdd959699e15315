// SPDX-License-Identifier: Apache-2.0
// The part of a session that serves a method which leaves the choice to the engine.
#include <algorithm>
#include <iterator>

#include "engine/measure_cost.h"
#include "engine/registry.h"
#include "engine/session.h"

namespace lacuna {

// The candidates as methods; without audits there would be nothing to hold the limit against.
Status Session::Impl::open_candidates() {
  const auto wanted = method->candidates();
  if (!wanted) return {};
  const std::vector<std::string>* lists[] = {&wanted->prefill, &wanted->decode};
  for (std::size_t i = 0; i < std::size(lists); ++i)
    for (const std::string& spec : *lists[i]) {
      auto made = make_method(spec);
      if (!made.ok()) return made.error();
      candidates[i].push_back(std::move(made.value()));
    }
  chooser = std::make_unique<Chooser>(wanted->prefill, wanted->decode, wanted->max_loss);
  if (options.audit == Audit::off) options.audit = Audit::sample;
  return {};
}

CallShape Session::Impl::shape_of(const AttendCall& c) const {
  CallShape shape;
  shape.hq = static_cast<int>(c.q.heads());
  shape.hkv = static_cast<int>(c.k.heads());
  shape.dk = static_cast<int>(c.q.dim());
  shape.dv = static_cast<int>(c.v.dim());
  shape.k_type = c.k.dtype;
  shape.v_type = c.v.dtype;
  shape.precision = options.precision;
  shape.features = have;
  shape.workers = parallel->workers();
  shape.kernel = options.kernel;
  return shape;
}

// The costs of calls of this shape, measured when the machine has none on file; empty if they cannot be.
const CostModel& Session::Impl::costs_for(const AttendCall& c) {
  CallShape shape = shape_of(c);
  for (const auto& [known, model] : costs)
    if (known == shape) return model;
  Options like = options;
  like.parallel = parallel;
  auto model = costs_of_machine(shape, like, chooser->specs(Phase::prefill), chooser->specs(Phase::decode));
  costs.emplace_back(std::move(shape), model.ok() ? std::move(model.value()) : CostModel{});
  return costs.back().second;
}

Session::Impl::Chosen Session::Impl::choose(const AttendCall& c, const MaskEntry& mask, const Segment& s) {
  Chosen x;
  x.call = {.layer = c.layer, .phase = s.rows() == 1 ? Phase::decode : Phase::prefill, .rows = s.rows(), .keys = s.n_keys, .pairs = 0};
  if (s.n_keys < Chooser::kFewestKeys || chooser->specs(x.call.phase).empty()) return x;
  for (std::int32_t i = s.row_begin; i < s.row_end; ++i) x.call.pairs += static_cast<double>(mask.visible.visible_keys(i));
  x.call.pairs *= static_cast<double>(c.q.heads());
  x.costs = &costs_for(c);
  x.choice = chooser->choose(x.call, *x.costs);
  return x;
}

void Session::Impl::tell_chooser(const Chosen& x, const Outcome& o) {
  if (heads && heads->all_dense) return;  // the contract's doing: it says nothing about the candidate
  if (x.costs) chooser->saw(x.call, x.choice, *x.costs, o.density, o.lost, o.audited);
}

}  // namespace lacuna
