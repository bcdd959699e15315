// SPDX-License-Identifier: Apache-2.0
// tune: from what methods were seen to keep and lose (method/trial_sums.h) and what they cost on this machine
// (engine/cost.h), the method of each head.
#pragma once

#include <string>
#include <vector>

#include "engine/cost.h"
#include "lacuna/result.h"
#include "method/trial_sums.h"
#include "method/tuned_table.h"

namespace lacuna {

// The lengths at which choices may change, up to the first that holds `longest` keys.
std::vector<std::int64_t> tuning_bands(std::int64_t longest);
// What heads choose among where nobody says: windows of all sizes for texts of up to `longest` keys, and methods that choose.
std::vector<std::string> tuning_methods(std::int64_t longest);

// Which prompts of so many tokens are held back to check by: one in four of the long ones, at least one, never the longest
// alone. A short one would say little of what long texts lose. Two prompts or more.
std::vector<bool> held_back(const std::vector<std::size_t>& tokens);

struct Tuning {
  TunedTable table;
  // A text of sums.longest tokens by the cost model: attention with the table, and dense; and its mean lost mass.
  double seconds = 0, dense_seconds = 0, lost = 0;
};
// costs.prefill.candidates are sums.methods. chunk: rows of a call. n_layers: of the model.
Result<Tuning> tune(const TrialSums& sums, const CostModel& costs, double max_loss, int chunk, int n_layers);

}  // namespace lacuna
