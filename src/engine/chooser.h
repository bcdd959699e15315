// SPDX-License-Identifier: Apache-2.0
// Chooser: for every call of a layer, dense or one of a method's candidates: the one that the cost model
// says is cheapest at the density the layer last showed, as long as the layer's audited loss stays
// within the limit. What a layer would show is found by trying, and trying may cost no more than a
// small share of what dense attention would have cost so far.
//
// Decisions follow from the cost model, densities, losses and the order of calls, never from a clock: the
// same calls with the same costs are decided alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/cost.h"
#include "op/attention_view.h"

namespace lacuna {

class Chooser {
 public:
  // Fewer keys than this are always dense: no candidate pays there, and nothing is measured for them.
  static constexpr std::int64_t kFewestKeys = 1024;

  Chooser(std::vector<std::string> prefill, std::vector<std::string> decode, double max_loss)
      : specs_{std::move(prefill), std::move(decode)}, max_loss_(max_loss) {}

  const std::vector<std::string>& specs(Phase phase) const { return specs_[at(phase)]; }

  struct Call {
    int layer = 0;
    Phase phase = Phase::prefill;
    std::int64_t rows = 0, keys = 0;
    double pairs = 0;  // visible, of all heads
  };
  struct Choice {
    int candidate = -1;  // of specs(phase); -1: dense
    bool trial = false;  // to learn: audit it
  };
  // Called once per call and layer, in order; then saw() if a candidate was chosen.
  Choice choose(const Call& call, const CostModel& costs);
  // What came of it: the density, and the audited rows' lost mass, summed.
  void saw(const Call& call, const Choice& choice, const CostModel& costs, double density, double lost, std::int64_t audited);

  // One sentence: how many layers are sparse in each phase, with what, and why the others are not.
  std::string summary() const;

 private:
  struct Known {             // about one candidate in one layer
    std::int64_t keys = 0;   // of the last call that showed something; 0: none did
    double density = 1;
    double lost = 0;
    std::int64_t audited = 0;
    bool barred = false;     // lost more than the limit
  };
  struct Layer {
    std::vector<Known> known;
    int last = -1;           // the last choice
  };
  static std::size_t at(Phase phase) { return phase == Phase::decode ? 1 : 0; }
  Layer& layer(Phase phase, int number);

  std::vector<std::string> specs_[2];
  double max_loss_;
  std::vector<Layer> layers_[2];
  // Seconds by the cost model: dense attention of all calls so far, and what trials cost beyond it.
  double dense_so_far_ = 0, spent_ = 0;
  bool pays_nowhere_[2] = {true, true};  // no candidate could have paid in any call so far
};

}  // namespace lacuna
