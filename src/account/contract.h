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
// In decode draws are rare, and waiting for the bound would take hundreds of tokens: there the mean with two standard errors is kept
// within the limit and the report says how far the bound is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "account/loss.h"
#include "op/attention_view.h"

namespace lacuna {

class Contract {
 public:
  // limit: of the mean loss, 0 < limit < 1. widest: how often the method can be made to keep more.
  Contract(double limit, int widest) : limit_(limit), widest_(widest) {}
  double limit() const { return limit_; }

  struct Call {
    Phase phase = Phase::prefill;
    int layer = 0, heads = 0;
    std::int64_t keys = 0;  // that the last row may see
    double draws = 0;       // that the call will make, on average
    int layers = 0;         // of the model; 0: unknown
    bool last = false;      // no other call of the layer follows in this phase
  };
  struct Choice {
    std::vector<bool> dense;  // by query head
    bool all_dense = true;
    bool peek = false;  // show what the method would lose in the heads that are dense
    int level = 0;      // how much wider than asked the method shall keep: 0 .. widest
  };

  // What heads of a call may do; once per call and layer, in order.
  const Choice& choose(const Call& call);
  // What came of it: the share of its keys that the method keeps in a head; a row's loss there, whether the head ran sparse or was
  // peeked at.
  void kept(const Call& call, int head, double density);
  void saw(const Call& call, int head, double loss);
  // The rows drawn by chance, and those of calls in which nothing was left out: what the contract is about.
  LossCounter& ledger(Phase phase) { return ledgers_[phase == Phase::decode ? 1 : 0]; }

  ContractReport::Phase report(Phase phase) const;

  // A head that was left dense in some calls.
  struct DenseHead {
    Phase phase = Phase::prefill;
    int layer = 0, head = 0;
    std::int64_t calls = 0, dense_calls = 0;
    double loss = 0, density = 1;  // as seen of late; loss < 0: never seen
    const char* why = "";          // as of the last call; empty: sparse there
  };
  std::vector<DenseHead> dense_heads() const;

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
  bool next_may_lose(const Call& call);
  double may_lose(Phase phase, double draws, double horizon);
  void begin_pass(Phase phase);
  void spend(Run& run, double allowed);

  double limit_;
  int widest_;
  Run runs_[2];
  LossCounter ledgers_[2];
  Choice choice_;
};

}  // namespace lacuna
