// SPDX-License-Identifier: Apache-2.0
// What bench says of a case: on the screen, in JSON, and as the rounds that two runs are compared by.
#pragma once

#include <nlohmann/json.hpp>

#include "cli/bench/choosing.h"
#include "cli/bench/measured.h"
#include "cli/bench/saved.h"

namespace lacuna::cli {

void print(const Case& c, const Measured& m);
nlohmann::ordered_json as_json(const Case& c, const Measured& m);
CaseRounds rounds_of(const Case& c, const Measured& m);

// A choose case has figures of its own.
void print(const Case& c, const Choosing& o);
nlohmann::ordered_json as_json(const Case& c, const Choosing& o);
CaseRounds rounds_of(const Case& c, const Choosing& o);

}  // namespace lacuna::cli
