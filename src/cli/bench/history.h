// SPDX-License-Identifier: Apache-2.0
// How cases went from run to run: the page of lacuna bench --history.
#pragma once

#include <string>
#include <vector>

#include "cli/bench/saved.h"

namespace lacuna::cli {

// The runs in any order; machines apart. Each case stands against its first run on that machine.
std::string history_html(std::vector<SavedRun> runs);

}  // namespace lacuna::cli
