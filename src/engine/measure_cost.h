// SPDX-License-Identifier: Apache-2.0
// Measures a cost model: sessions of dense and of each candidate over made-up data of a shape.
#pragma once

#include <string>
#include <vector>

#include "engine/cost.h"
#include "lacuna/lacuna.h"

namespace lacuna {

// Takes a second or so. `like`: precision, machine, kernel and threads of the session that asks.
Result<CostModel> measure_costs(const CallShape& shape, const Options& like, const std::vector<std::string>& prefill,
                                const std::vector<std::string>& decode);

// What the file says, or measured anew and written there; a folder that cannot be written to is no error.
Result<CostModel> costs_of_machine(const CallShape& shape, const Options& like, const std::vector<std::string>& prefill,
                                   const std::vector<std::string>& decode);

}  // namespace lacuna
