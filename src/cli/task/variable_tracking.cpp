// SPDX-License-Identifier: Apache-2.0
// Variables that are set to one another, strewn over a text: which of them have a value? (RULER's variable tracking,
// arXiv:2404.06654: one chain of four hops.) A second, shorter chain with another value is there to be left out.
#include <algorithm>

#include <fmt/format.h>

#include "cli/task/haystack.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr std::size_t kVariables = 5, kOthers = 2;

std::vector<std::string> variables(Rng& rng, std::size_t n) {
  std::vector<std::string> names;
  while (names.size() < n) {
    std::string name;
    for (int i = 0; i < 4; ++i) name += static_cast<char>('A' + rng.below(26));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

// Each is said after the one it takes its value from.
void add_chain(Rng& rng, const std::vector<std::string>& names, const std::string& value, std::vector<Hidden>& hidden) {
  std::vector<double> depths;
  for (std::size_t i = 0; i < names.size(); ++i) depths.push_back(rng.uniform());
  std::sort(depths.begin(), depths.end());
  for (std::size_t i = 0; i < names.size(); ++i)
    hidden.push_back({depths[i], fmt::format("VAR {} = {}.", names[i], i == 0 ? value : "VAR " + names[i - 1])});
}

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const std::vector<std::string> names = variables(rng, kVariables + kOthers);
  const std::vector<std::string> asked(names.begin(), names.begin() + kVariables);
  const std::string value = number(rng, 5);
  std::vector<Hidden> hidden;
  add_chain(rng, asked, value, hidden);
  add_chain(rng, {names.begin() + kVariables, names.end()}, number(rng, 5), hidden);
  return from_text(
      request, rng,
      [&](std::string_view text) {
        Sample s;
        s.context = "Some variables are set in the text below. Keep track of their values.\n\n" + hide(text, hidden);
        s.turns = {
            {fmt::format("Which variables have the value {0}? {1} of them have it, by themselves or from another "
                         "variable. Name all of them.",
                         value, kVariables),
             fmt::format("The {} variables with the value {} are", kVariables, value), asked}};
        s.scoring = Scoring::all;
        s.answer_tokens = 40;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task variable_tracking_task = {
    "variable-tracking", "all variables that have a value, by a chain of four hops through a text", "arXiv:2404.06654",
    Scoring::all, make};

}  // namespace lacuna::cli::task
