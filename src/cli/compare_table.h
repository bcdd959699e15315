// SPDX-License-Identifier: Apache-2.0
// What `lacuna compare` prints: a table within 80 columns and one closing sentence.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

// `document`: {"runs": [run's fields + kl_mean, same_top_share, error], "floor": {...} or null}.
std::string compare_table(const nlohmann::ordered_json& document);
// What the fastest method within 1 % lost mass gained and lost against stock and dense.
std::string compare_sentence(const nlohmann::ordered_json& document);

}  // namespace lacuna::cli
