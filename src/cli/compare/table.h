// SPDX-License-Identifier: Apache-2.0
// What `lacuna compare` prints, within 80 columns but for the closing sentence.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

// All of it: speed-up and lost mass by length if there are several, the table of the longest, one closing sentence, and
// what is missing.
std::string compare_text(const nlohmann::ordered_json& document);
// What the fastest method within 1 % lost mass gained and lost at a length, against stock and dense.
std::string compare_sentence(const nlohmann::ordered_json& length);

// compare_lengths.cpp: rows are methods, columns lengths.
std::string lengths_table(const nlohmann::ordered_json& document);

}  // namespace lacuna::cli
