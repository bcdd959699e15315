// SPDX-License-Identifier: Apache-2.0
#include "cli/task/score.h"

#include <algorithm>
#include <iterator>

namespace lacuna::cli::task {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_high(char c) { return (static_cast<unsigned char>(c) & 0x80) != 0; }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// A comma between digits divides thousands: 4,821 is 4821. Letters beyond ASCII keep their case.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = lower(text[i]);
    const bool letter = (c >= 'a' && c <= 'z') || is_digit(c) || is_high(c);
    const bool divides = c == ',' && inside && is_digit(text[i - 1]) && i + 1 < text.size() && is_digit(text[i + 1]);
    if (letter) {
      if (!inside) words.emplace_back();
      words.back() += c;
    }
    inside = letter || divides;
  }
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string out = " ";
  for (const std::string& word : words) out += word + " ";
  return out;
}

// Whole words, but where a script has no blanks between them.
bool holds(const std::string& text, std::string_view part) {
  const std::vector<std::string> words = words_of(part);
  if (words.empty()) return false;
  const std::string sought = joined(words);
  if (text.find(sought) != std::string::npos) return true;
  return std::any_of(part.begin(), part.end(), is_high) &&
         text.find(sought.substr(1, sought.size() - 2)) != std::string::npos;
}

double shared(std::vector<std::string> a, std::vector<std::string> b) {
  if (a.empty() && b.empty()) return 1;
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  std::vector<std::string> both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return 2.0 * static_cast<double>(both.size()) / static_cast<double>(a.size() + b.size());
}

}  // namespace

double score_answer(Scoring scoring, const std::vector<std::string>& right, std::string_view answer) {
  const std::vector<std::string> words = words_of(answer);
  const std::string text = joined(words);
  double best = 0, found = 0;
  for (const std::string& one : right) switch (scoring) {
      case Scoring::any:
        best = std::max(best, holds(text, one) ? 1.0 : 0.0);
        break;
      case Scoring::all:
        found += holds(text, one) ? 1.0 : 0.0;
        break;
      case Scoring::exact:
        best = std::max(best, words == words_of(one) ? 1.0 : 0.0);
        break;
      case Scoring::f1:
        best = std::max(best, shared(words, words_of(one)));
        break;
      case Scoring::perplexity:
        break;
    }
  return scoring == Scoring::all && !right.empty() ? found / static_cast<double>(right.size()) : best;
}

double likeness(std::string_view a, std::string_view b) { return shared(words_of(a), words_of(b)); }

}  // namespace lacuna::cli::task
