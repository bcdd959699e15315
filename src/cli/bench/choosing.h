// SPDX-License-Identifier: Apache-2.0
// What choosing costs: the time a method takes to decide what a prompt attends to (estimate and budget, and
// what it has kept beside the keys) as a share of the time that attending to everything takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/case/case.h"

namespace lacuna::cli {

struct Choosing {
  // Seconds of each round, over all calls of the prompt.
  std::vector<double> estimate, budget, side, attend, dense;
  std::vector<double> share;  // (estimate + budget + side) / dense, of neighbours in time
  double density = 1;
  double attended_pairs = 0;  // a choice as one number: another one hardly has the same
  std::string kernel, note;   // of attend; why the method went dense
};

// A `choose` case: made-up queries and keys as models tend to have them (engine/made_up.h), read in calls of
// `chunk` rows through two sessions in turns, dense and with the method. rounds 0: about three seconds' worth.
Result<Choosing> measure_choosing(const Case& c, int rounds);

}  // namespace lacuna::cli
