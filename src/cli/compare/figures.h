// SPDX-License-Identifier: Apache-2.0
// Figures of compare's document, as its tables and its page read them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace lacuna::cli {

constexpr double kAllowedLoss = 0.01;  // of attention mass, mean

// The number at a pointer ("/lost_mass/mean"), if there is one.
std::optional<double> figure(const nlohmann::ordered_json& run, const char* pointer);
// Mean lost mass, of the prompt or while writing, whichever is more.
std::optional<double> lost_mass(const nlohmann::ordered_json& run);
// Seconds of a step of attention ("attend") while the prompt was read.
double step_seconds(const nlohmann::ordered_json& run, const char* step);
// Seconds of all steps of the prompt that a method is to blame for: all but the audit. None where Lacuna did not
// attend.
std::optional<double> attention_seconds(const nlohmann::ordered_json& run);
// Has it figures, at least up to the first token?
bool worked(const nlohmann::ordered_json& run);
// The run of a method at a length, if it worked.
const nlohmann::ordered_json* find_run(const nlohmann::ordered_json& length, std::string_view method);
// How many times sooner than stock the first token came.
std::optional<double> speedup(const nlohmann::ordered_json& length, const nlohmann::ordered_json& run);
// Tokens by which a length goes: of the text, or of the prompt where there is no text.
long long tokens_of(const nlohmann::ordered_json& length);
// The longest length that has something to show; the first if none has.
const nlohmann::ordered_json& longest(const nlohmann::ordered_json& document);

// "1.23", or "-" for none; "1.23 %".
std::string plain(std::optional<double> x, const char* format);
std::string share(std::optional<double> x);
// "did not run: why"; "" for a run whose figures are whole.
std::string state_words(const nlohmann::ordered_json& run);
// "Partial: interrupted; 7 of 12 runs are whole."; "" for a whole document.
std::string partial_words(const nlohmann::ordered_json& document);

}  // namespace lacuna::cli
