// SPDX-License-Identifier: Apache-2.0
// Contract: keeps the mean loss of a run within a limit by leaving heads dense. What counts is the run's mean with its bound
// (LossCounter), so losses go where they buy most: there is one price for all heads of all layers, and a head is sparse if what
// it is seen to lose costs no more than what it saves.
//
// A PASS is one call of every layer. Before each the contract looks at what the run may still lose, and sets the price so that
// the coming pass spends just that. Nothing runs sparse before it was seen: a dense call is looked at too, by what its method
// would have lost in a few rows (a PEEK). What a row lost in a sparse call was decided before the row was drawn, as the bound
// wants it.
//
// In prompts the bound itself is kept within the limit, so the first calls of a run are dense: a bound of few draws is wide.
// In decode draws are rare, and waiting for the bound would take hundreds of tokens: there the mean is kept within the limit and the
// report says how far the bound is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "account/loss.h"
#include "op/attention_view.h"

namespace lacuna {

class Contract {
 public:
  // limit: of the mean loss, 0 < limit < 1. by_chance: rows are sampled (else all are audited, and the mean is its own bound).
  // widest: how often the method can be made to keep more.
  Contract(double limit, bool by_chance, int widest) : limit_(limit), by_chance_(by_chance), widest_(widest) {}
  double limit() const { return limit_; }

  struct Call {
    Phase phase = Phase::prefill;
    int layer = 0, heads = 0;
    std::int64_t keys = 0;  // that the last row may see
  };
  struct Choice {
    std::vector<bool> dense;  // by query head
    bool all_dense = true;
    bool peek = false;  // show what the method would lose in the heads that are dense
    int level = 0;      // how much wider than asked the method shall keep: 0 .. widest
  };

  // What heads of a call may do; once per call and layer, in order. `counter`: the phase's losses so far.
  const Choice& choose(const Call& call, const LossCounter& counter);
  // What came of it. A row's loss in one head, whether the head ran sparse or was peeked at; the share of its keys that the
  // method keeps.
  void saw(const Call& call, int head, double loss);
  void kept(const Call& call, int head, double density);

  using State = ContractReport::State;
  State state(const LossStats& lost) const {
    return lost.upper <= limit_ ? State::held : lost.mean > limit_ ? State::broken : State::open;
  }

  // A head that was left dense in some calls.
  struct DenseHead {
    Phase phase = Phase::prefill;
    int layer = 0, head = 0;
    std::int64_t calls = 0, dense_calls = 0;
    double loss = 0, density = 1;  // as seen of late; loss < 0: never seen
    const char* why = "";          // as of the last call; empty: sparse there
  };
  std::vector<DenseHead> dense_heads() const;
  int heads(Phase phase) const;           // (layer, query head)s seen
  int widened_layers(Phase phase) const;  // whose method was made wider

 private:
  struct Head {
    double loss = 0, weight = 0;  // of rows, later ones count more
    double density = 1;
    std::int64_t calls = 0, dense_calls = 0;
    bool dense = true;
    const char* why = "not looked at yet";
  };
  struct Layer {
    std::vector<Head> heads;
    std::int64_t calls = 0;
    int level = 0, mostly_dense = 0;  // passes in a row in which most heads cost too much
  };
  struct Run {
    std::vector<Layer> layers;
    int last_layer = -1;
    std::int64_t draws = 0;  // when the pass began
  };

  Run& run(Phase phase) { return runs_[phase == Phase::decode ? 1 : 0]; }
  const Run& run(Phase phase) const { return runs_[phase == Phase::decode ? 1 : 0]; }
  static double estimate(const Head& h, double limit);
  void begin_pass(Phase phase, const LossCounter& counter);
  void spend(Run& run, double allowed);

  double limit_;
  bool by_chance_;
  int widest_;
  Run runs_[2];
  Choice choice_;
};

}  // namespace lacuna
