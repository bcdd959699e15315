// SPDX-License-Identifier: Apache-2.0
// Lengths in tokens as users write them: 500,1k,8k, where k is 1024.
#pragma once

#include <string>
#include <vector>

namespace lacuna::cli {

// Ascending, each once. False, with `error`, when a word is no length.
bool parse_lengths(const std::string& list, std::vector<int>& lengths, std::string& error);
// "8k" for 8192, "1,500" for 1500.
std::string length_words(long long tokens);

}  // namespace lacuna::cli
