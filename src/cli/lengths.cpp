// SPDX-License-Identifier: Apache-2.0
#include "cli/lengths.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

namespace lacuna::cli {

namespace {

constexpr long long kLongest = 1LL << 26;  // as -c

// Tokens of one word, 0 if it is no length.
long long tokens_of(std::string_view word) {
  const bool thousands = !word.empty() && (word.back() == 'k' || word.back() == 'K');
  if (thousands) word.remove_suffix(1);
  long long n = 0;
  const auto [end, bad] = std::from_chars(word.data(), word.data() + word.size(), n);
  if (bad != std::errc() || end != word.data() + word.size() || n < 1 || n > kLongest) return 0;
  n *= thousands ? 1024 : 1;
  return n > kLongest ? 0 : n;
}

}  // namespace

bool parse_lengths(const std::string& list, std::vector<int>& lengths, std::string& error) {
  lengths.clear();
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    const std::string word = list.substr(at, end - at);
    const long long n = tokens_of(word);
    if (n == 0) {
      error = fmt::format("--lengths: got '{}', need tokens from 1 to {}, as 500 or 8k (k = 1024), separated by commas",
                          word, kLongest);
      return false;
    }
    lengths.push_back(static_cast<int>(n));
    at = end + 1;
  }
  std::sort(lengths.begin(), lengths.end());
  lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  return true;
}

std::string length_words(long long tokens) {
  if (tokens >= 1024 && tokens % 1024 == 0) return fmt::format("{}k", tokens / 1024);
  const std::string digits = std::to_string(tokens);
  std::string out;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out += ',';
    out += digits[i];
  }
  return out;
}

}  // namespace lacuna::cli
