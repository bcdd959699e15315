// SPDX-License-Identifier: Apache-2.0
#include "account/contract.h"

#include <algorithm>
#include <cmath>

namespace lacuna {
namespace {

constexpr double kFade = 0.95;          // of a row's weight per later row: some twenty rows are remembered
constexpr double kSeen = 1.5;           // weight of rows before a head is judged: two
constexpr double kWorthIt = 0.05;       // of the pairs, at least, for a head to be sparse
constexpr double kDearest = 5;          // limits that one head may lose, however much the run has left to lose
constexpr double kCaution = 1.1;        // losses grow as prompts do, and heads chosen for small losses were also lucky:
constexpr double kDecodeCaution = 1.75; // the more so the fewer rows they were chosen by (bench/contract_study.py)
constexpr std::int64_t kDecodeLooks = 4;     // first steps that are dense and looked at
constexpr std::int64_t kPeekEvery = 3, kDecodePeekEvery = 64;
constexpr int kWidenAfter = 2;          // passes
constexpr const char* kTooDear = "loses too much for what it saves";

}  // namespace

double Contract::estimate(const Head& h, double limit) {
  // One row that lost the limit stands for what was not seen yet.
  return (h.loss + limit) / (h.weight + 1);
}

const Contract::Choice& Contract::choose(const Call& call) {
  Run& r = run(call.phase);
  if (call.layer <= r.last_layer) begin_pass(call.phase);
  r.last_layer = call.layer;
  const auto n = static_cast<std::size_t>(std::max(call.layer, 0));
  if (n >= r.layers.size()) r.layers.resize(n + 1);
  Layer& l = r.layers[n];
  l.heads.resize(static_cast<std::size_t>(call.heads));
  choice_.dense.assign(l.heads.size(), true);
  choice_.all_dense = true;
  choice_.peek = false;
  choice_.level = l.level;
  if (call.keys < kMinAuditedKeys) return choice_;  // rows that do not count: nothing could be said about them
  const bool decode = call.phase == Phase::decode;
  ++l.calls;
  bool any_dense = false, unseen = false;
  for (std::size_t h = 0; h < l.heads.size(); ++h) {
    Head& head = l.heads[h];
    ++head.calls;
    head.dense_calls += head.dense;
    choice_.dense[h] = head.dense;
    choice_.all_dense = choice_.all_dense && head.dense;
    any_dense = any_dense || head.dense;
    unseen = unseen || head.weight < kSeen;
  }
  const std::int64_t every = decode ? kDecodePeekEvery : kPeekEvery;
  choice_.peek = any_dense && (unseen || l.calls % every == 0 || (decode && l.calls <= kDecodeLooks)) && next_may_lose(call);
  return choice_;
}

// Whether it is worth to know what heads would lose: the pass after this one may have something to lose.
bool Contract::next_may_lose(const Call& call) {
  const Run& r = run(call.phase);
  if (call.phase == Phase::decode) return true;
  if (call.last) return false;
  if (call.layers == 0 && r.draws == 0) return true;  // nobody knows how much this pass will show
  const double pass = call.draws * std::max(call.layers, static_cast<int>(r.layers.size()));
  return may_lose(call.phase, static_cast<double>(r.draws) + pass, pass) > 0;
}

void Contract::saw(const Call& call, int head, double loss) {
  Head& h = run(call.phase).layers[static_cast<std::size_t>(std::max(call.layer, 0))].heads[static_cast<std::size_t>(head)];
  h.loss = kFade * h.loss + std::min(loss, 1.0);
  h.weight = kFade * h.weight + 1;
}

void Contract::kept(const Call& call, int head, double density) {
  run(call.phase).layers[static_cast<std::size_t>(std::max(call.layer, 0))].heads[static_cast<std::size_t>(head)].density = density;
}

// What `horizon` draws after the first `draws` may lose in all: what they earn, and what is left of earlier ones or is owed for
// them, less two standard errors of what chance adds.
double Contract::may_lose(Phase phase, double draws, double horizon) {
  const LossCounter& counter = ledger(phase);
  const bool decode = phase == Phase::decode;
  const double owed = decode ? counter.sum() : counter.at_most(true);  // a bound has the error of its draws in it, a sum has not
  const double uncertain = horizon + (decode ? static_cast<double>(counter.sampled()) : 0.0);
  return limit_ * (draws + horizon) - owed - 2 * std::sqrt(counter.variance(4 * limit_ * limit_) * uncertain);
}

// Sets what the coming pass may lose.
void Contract::begin_pass(Phase phase) {
  Run& r = run(phase);
  const std::int64_t draws = ledger(phase).draws();
  const bool decode = phase == Phase::decode;
  // A pass of one draw or less, as in decode, says nothing: many are looked at together.
  const double horizon = decode ? std::max(static_cast<double>(r.layers.size()), 1.0) : static_cast<double>(draws - r.draws);
  r.draws = draws;
  if (!decode && horizon <= 0) return spend(r, 0);
  const double allowed = may_lose(phase, static_cast<double>(draws), horizon);
  spend(r, std::max(0.0, allowed) / ((decode ? kDecodeCaution : kCaution) * horizon));
}

// Sets who is sparse, so that the mean loss over all heads is `allowed` at most: those first that lose least for what they save.
void Contract::spend(Run& r, double allowed) {
  struct Offer {
    double ratio, loss;
    Head* head;
  };
  std::vector<Offer> offers;
  std::size_t heads = 0;
  for (Layer& l : r.layers)
    for (Head& h : l.heads) {
      ++heads;
      const double saved = 1 - h.density, loss = estimate(h, limit_);
      h.dense = true;
      if (h.weight < kSeen) h.why = "not looked at yet";
      else if (saved < kWorthIt) h.why = "nothing to save: the method keeps nearly all";
      else if (loss > kDearest * limit_) h.why = kTooDear;
      else offers.push_back({loss / saved, loss, &h});
    }
  std::sort(offers.begin(), offers.end(), [](const Offer& a, const Offer& b) { return a.ratio < b.ratio; });
  double left = allowed * static_cast<double>(heads);
  for (const Offer& o : offers) {
    const bool affordable = o.loss <= left;
    o.head->dense = !affordable;
    o.head->why = affordable ? "" : allowed > 0 ? kTooDear : "the bound is still too wide, or the run has lost too much";
    left = affordable ? left - o.loss : 0;
  }
  for (Layer& l : r.layers) {
    std::size_t dear = 0;
    for (const Head& h : l.heads) dear += h.dense && h.weight >= kSeen && 1 - h.density >= kWorthIt;
    // Early in a run little can be afforded whatever the method: that is no reason to widen it.
    l.mostly_dense = allowed >= limit_ / 2 && 2 * dear > l.heads.size() ? l.mostly_dense + 1 : 0;
    if (l.mostly_dense < kWidenAfter || l.level == widest_) continue;
    ++l.level;  // what was seen of the narrower method says little of the wider one
    l.mostly_dense = 0;
    for (Head& h : l.heads) h.weight = h.loss = 0;
  }
}

std::vector<Contract::DenseHead> Contract::dense_heads() const {
  std::vector<DenseHead> out;
  for (const Phase phase : {Phase::prefill, Phase::decode}) {
    const auto& layers = run(phase).layers;
    for (std::size_t l = 0; l < layers.size(); ++l)
      for (std::size_t h = 0; h < layers[l].heads.size(); ++h) {
        const Head& head = layers[l].heads[h];
        if (head.dense_calls > 0)
          out.push_back({phase, static_cast<int>(l), static_cast<int>(h), head.calls, head.dense_calls,
                         head.weight > 0 ? head.loss / head.weight : -1.0, head.density, head.why});
      }
  }
  return out;
}

ContractReport::Phase Contract::report(Phase phase) const {
  using State = ContractReport::State;
  ContractReport::Phase r;
  const LossStats lost = ledgers_[phase == Phase::decode ? 1 : 0].stats();
  r.mean = lost.mean;
  r.upper = lost.upper;
  r.state = lost.upper <= limit_ ? State::held : lost.mean > limit_ ? State::broken : State::open;
  for (const Layer& l : run(phase).layers) {
    r.heads += static_cast<int>(l.heads.size());
    r.widened_layers += l.level > 0;
    for (const Head& h : l.heads) r.dense_heads += h.dense;
  }
  return r;
}

}  // namespace lacuna
