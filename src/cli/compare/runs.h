// SPDX-License-Identifier: Apache-2.0
// The runs of compare: every method at every length.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/compare/texts.h"

namespace lacuna::cli {

// Fills in `document` (new_document's), length by length; `changed` is called whenever something new stands in it.
// Ends early after Ctrl-C. With `kl`, each length ends with a pass that compares logits with stock's.
void make_runs(const std::vector<CompareText>& texts, int rounds, bool kl, nlohmann::ordered_json& document,
               const std::function<void()>& changed);

}  // namespace lacuna::cli
