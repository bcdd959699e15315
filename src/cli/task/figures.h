// SPDX-License-Identifier: Apache-2.0
// Figures of a document of compare that has a task: scores, and how like dense's the answers are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/task/sample.h"

namespace lacuna::cli::task {

// Does a document have a task?
bool has_task(const nlohmann::ordered_json& document);
bool of_perplexity(const nlohmann::ordered_json& document);

// What the samples of a length are, without their texts: `samples` of a length.
nlohmann::ordered_json samples_json(const std::vector<Sample>& samples);
// Adds `samples`, `score`, `agreement` and `same_answers` to a run. `lines`: what lacuna task wrote, one per sample;
// `dense`: dense's, empty if it has none.
void add_scores(const std::vector<Sample>& samples, const std::vector<nlohmann::ordered_json>& lines,
                const std::vector<nlohmann::ordered_json>& dense, nlohmann::ordered_json& run);

// "80 %", or a perplexity: "12.34"; "-" for none.
std::string score_words(const nlohmann::ordered_json& document, const nlohmann::ordered_json& run);
// "97 %".
std::string agreement_words(const nlohmann::ordered_json& run);
// How far the scores of the longest length can be trusted, and which method answers most like dense.
std::string task_sentence(const nlohmann::ordered_json& document, const nlohmann::ordered_json& length);

}  // namespace lacuna::cli::task
