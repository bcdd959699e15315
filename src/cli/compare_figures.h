// SPDX-License-Identifier: Apache-2.0
// Figures of one run of compare, as its table and its page read them.
#pragma once

#include <optional>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

constexpr double kAllowedLoss = 0.01;  // of attention mass, mean

// The number at a pointer ("/lost_mass/mean"), if there is one.
std::optional<double> figure(const nlohmann::ordered_json& run, const char* pointer);
// Mean lost mass, of the prompt or while writing, whichever is more.
std::optional<double> lost_mass(const nlohmann::ordered_json& run);
bool worked(const nlohmann::ordered_json& run);
// The run of a method, if it worked.
const nlohmann::ordered_json* find_run(const nlohmann::ordered_json& document, std::string_view method);

}  // namespace lacuna::cli
