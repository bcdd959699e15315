// SPDX-License-Identifier: Apache-2.0
// The ten words that stand most often in a long list (RULER's common words, arXiv:2404.06654): 30 times each, the
// others 3 times; in short lists fewer times, 8 at least. The words are those of the text.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "cli/task/fit.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr std::size_t kCommon = 10, kShortest = 100;  // words, entries
constexpr std::size_t kOther = 3;                     // times

// Different words of 4 to 9 small letters, by first appearance.
std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::set<std::string_view> seen;
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && letter(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    at = end + 1;
    const bool small = std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
    if (small && word.size() >= 4 && word.size() <= 9 && seen.insert(word).second) words.emplace_back(word);
  }
  return words;
}

// How often a common word stands in a list of `n`, and how many other words fill it.
struct Counts {
  std::size_t common, others;
};
Counts counts_of(std::size_t n) {
  const std::size_t common = std::clamp<std::size_t>(n / 20, 8, 30);
  return {common, (n - kCommon * common) / kOther};
}

Sample with_words(std::size_t n, std::vector<std::string> words, Rng rng) {
  const Counts counts = counts_of(n);
  shuffle(rng, words);
  const std::vector<std::string> common(words.begin(), words.begin() + kCommon);
  std::vector<std::string> list;
  for (std::size_t i = 0; i < kCommon + counts.others; ++i)
    list.insert(list.end(), i < kCommon ? counts.common : kOther, words[i]);
  shuffle(rng, list);
  Sample s;
  s.context = fmt::format("Below is a list of words. Some of them stand in it more often than others.\n\n{}",
                          fmt::join(list, ", "));
  s.turns = {{fmt::format("Which are the {} words that stand most often in the list above?", kCommon),
              fmt::format("The {} words that stand most often are", kCommon), common}};
  s.scoring = Scoring::all;
  s.answer_tokens = 60;
  return s;
}

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const std::vector<std::string> words = words_of(request.text);
  constexpr std::size_t kNeeded = kCommon + kShortest / kOther;
  if (words.size() < kNeeded) {
    error = fmt::format("the text has {} different words of 4 to 9 letters, at least {} are needed; give a longer text",
                        words.size(), kNeeded);
    return false;
  }
  const std::size_t most = kOther * (words.size() - kCommon);
  Fit found = fit(request, kShortest, most, [&](std::size_t n) { return with_words(n, words, rng); });
  if (!found.fits)
    error = fmt::format("{} tokens do not hold {} words and the question, which take {}", request.tokens, kShortest,
                        found.least_tokens);
  else if (found.size == most && !found.full)
    error = fmt::format(
        "the different words of the text make a list of {} tokens, {} are needed; give a longer text or "
        "a shorter length",
        found.tokens, request.tokens);
  sample = std::move(found.sample);
  return error.empty();
}

}  // namespace

constinit const Task common_words_task = {"common-words", "the ten words that stand most often in a long list",
                                          "arXiv:2404.06654", Scoring::all, make};

}  // namespace lacuna::cli::task
