// SPDX-License-Identifier: Apache-2.0
// What must agree for something found on one model to be true of another.
#pragma once

#include <string>
#include <vector>

#include "lacuna/result.h"
#include "lacuna/rope.h"

namespace lacuna {

struct ModelFacts {
  std::string name;  // "" = unknown, and so 0 and RopeLayout::unknown in what follows
  int n_layers = 0, hq = 0, hkv = 0, dk = 0, dv = 0;
  Rope rope;
};

// One sentence per field in which both are known and differ: "hkv: got 4, need 8". The base of the
// rotation may differ by rounding. `need` is the profile's model, `got` the one at hand.
std::vector<std::string> differences(const ModelFacts& need, const ModelFacts& got);
// The same as an error that says what to do.
Status check_model(const ModelFacts& need, const ModelFacts& got);

}  // namespace lacuna
