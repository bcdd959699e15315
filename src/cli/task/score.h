// SPDX-License-Identifier: Apache-2.0
// How right an answer is, and how like another one. Both look at words: runs of letters and digits, in lower case.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/task/sample.h"

namespace lacuna::cli::task {

// 0 to 1; never of perplexity.
double score_answer(Scoring scoring, const std::vector<std::string>& right, std::string_view answer);
// The words two answers share, as F1: 2 |a and b| / (|a| + |b|), each word as often as it stands; 1 for two empty ones.
double likeness(std::string_view a, std::string_view b);

}  // namespace lacuna::cli::task
