// SPDX-License-Identifier: Apache-2.0
#include "engine/chooser.h"

#include <algorithm>

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr double kTrialShare = 0.01;   // of dense attention, for trials that did not pay
constexpr double kClearly = 0.95;      // a candidate must be this much cheaper: costs are measured, not known
constexpr double kLowestDensity = 0.02;  // the best that a trial may hope for
constexpr double kGrown = 1.5;         // so many times more keys, and what a layer showed is out of date
constexpr std::int64_t kEnoughRows = 16;  // audited, before a small loss is believed

}  // namespace

Chooser::Layer& Chooser::layer(Phase phase, int number) {
  auto& layers = layers_[at(phase)];
  const auto n = static_cast<std::size_t>(std::max(number, 0));
  if (n >= layers.size()) layers.resize(n + 1);
  if (layers[n].known.empty()) layers[n].known.resize(specs(phase).size());
  return layers[n];
}

Chooser::Choice Chooser::choose(const Call& call, const CostModel& costs) {
  const PhaseCost& cost = call.phase == Phase::decode ? costs.decode : costs.prefill;
  const double dense = cost.dense(call.pairs);
  dense_so_far_ += dense;
  Layer& l = layer(call.phase, call.layer);
  l.last = -1;
  const auto rows = static_cast<double>(call.rows), keys = static_cast<double>(call.keys);
  Choice best;
  double least = kClearly * dense;
  int untried = -1;
  if (cost.candidates.size() != l.known.size()) return best;  // what calls cost here could not be measured
  for (std::size_t i = 0; i < l.known.size(); ++i) {
    const Known& k = l.known[i];
    if (k.barred || cost.sparse(i, rows, keys, call.pairs, kLowestDensity) >= kClearly * dense) continue;
    pays_nowhere_[at(call.phase)] = false;
    const bool fresh = k.keys > 0 && static_cast<double>(call.keys) < kGrown * static_cast<double>(k.keys);
    const double seconds = cost.sparse(i, rows, keys, call.pairs, k.density);
    if (k.keys > 0 && seconds < least) {
      least = seconds;
      best.candidate = static_cast<int>(i);
    } else if (!fresh && untried < 0) {
      untried = static_cast<int>(i);
    }
  }
  // Worth a trial if, at the density of the best so far, it would be cheaper still.
  const double hope = best.candidate < 0 ? kLowestDensity : l.known[static_cast<std::size_t>(best.candidate)].density;
  if (untried >= 0 && cost.sparse(static_cast<std::size_t>(untried), rows, keys, call.pairs, hope) < least) {
    double worst = cost.sparse(static_cast<std::size_t>(untried), rows, keys, call.pairs, 1.0) - dense;
    if (call.rows == 1) worst += dense;  // its audit is a dense step
    if (spent_ + worst <= kTrialShare * dense_so_far_) best.candidate = untried;
  }
  // Until enough rows were audited, every call is: in decode one in 64 is, and a wrong choice would stay.
  if (best.candidate >= 0) best.trial = l.known[static_cast<std::size_t>(best.candidate)].audited < kEnoughRows;
  l.last = best.candidate;
  return best;
}

void Chooser::saw(const Call& call, const Choice& choice, const CostModel& costs, double density, double lost, std::int64_t audited) {
  if (choice.candidate < 0) return;
  const PhaseCost& cost = call.phase == Phase::decode ? costs.decode : costs.prefill;
  const auto i = static_cast<std::size_t>(choice.candidate);
  Known& k = layer(call.phase, call.layer).known[i];
  const double seconds = cost.sparse(i, static_cast<double>(call.rows), static_cast<double>(call.keys), call.pairs, density);
  const double dense = cost.dense(call.pairs);
  spent_ += std::max(0.0, seconds - dense) + (call.rows == 1 && audited > 0 ? dense : 0.0);
  k.keys = call.keys;
  k.density = density;
  k.lost += lost;
  k.audited += audited;
  // Rows not audited yet could at best lose nothing.
  if (k.lost > max_loss_ * static_cast<double>(std::max(k.audited, kEnoughRows))) k.barred = true;
}

std::string Chooser::summary() const {
  std::string out;
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    const auto& layers = layers_[at(phase)];
    if (layers.empty()) continue;
    std::vector<int> taken(specs(phase).size());
    int barred = 0, sparse = 0;
    for (const Layer& l : layers) {
      if (l.last >= 0) ++taken[static_cast<std::size_t>(l.last)], ++sparse;
      barred += l.last < 0 && std::any_of(l.known.begin(), l.known.end(), [](const Known& k) { return k.barred; });
    }
    std::string part = phase == Phase::decode ? "decode" : "prefill";
    if (sparse == 0) part += " dense";
    for (std::size_t i = 0; i < taken.size(); ++i)
      if (taken[i]) part += fmt::format(" {} in {} of {} layers", specs(phase)[i], taken[i], layers.size());
    if (sparse == 0 && pays_nowhere_[at(phase)]) part += " (below the crossover)";
    else if (barred) part += fmt::format(" ({} layers lose more than {:g})", barred, max_loss_);
    else if (sparse == 0) part += " (choosing would cost more than it saves)";
    out += (out.empty() ? "auto: " : "; ") + part;
  }
  return out;
}

}  // namespace lacuna
