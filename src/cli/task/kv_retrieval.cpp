// SPDX-License-Identifier: Apache-2.0
// The value of one key in a long list of random pairs (Liu et al. 2023, arXiv:2307.03172). Nothing but the key tells
// where to look, and no text helps: a method that keeps what looks important has nothing to go by.
#include <fmt/format.h>

#include "cli/task/fit.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr std::size_t kFewest = 4, kMost = 1 << 20;

std::string key(Rng& rng) {
  constexpr std::string_view kLetters = "0123456789abcdef";
  std::string out;
  for (int i = 0; i < 8; ++i) out += kLetters[rng.below(16)];
  return out;
}

Sample with_pairs(std::size_t n, double depth, Rng rng) {
  Sample s;
  const auto asked = static_cast<std::size_t>(depth * static_cast<double>(n));  // below n: depth is below 1
  s.context = "Each key below has one value.\n\n";
  for (std::size_t i = 0; i < n; ++i) {
    const std::string k = key(rng), value = number(rng, 8);
    s.context += fmt::format("\"{}\": \"{}\"\n", k, value);
    if (i == asked)
      s.turns = {{fmt::format("What is the value of the key \"{}\"?", k),
                  fmt::format("The value of the key \"{}\" is", k),
                  {value}}};
  }
  s.answer_tokens = 20;
  s.depth = depth;
  return s;
}

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const double depth = rng.uniform();
  Fit found = fit(request, kFewest, kMost, [&](std::size_t n) { return with_pairs(n, depth, rng); });
  if (!found.fits)
    error = fmt::format("{} tokens do not hold {} pairs and the question, which take {}", request.tokens, kFewest,
                        found.least_tokens);
  sample = std::move(found.sample);
  return found.fits;
}

}  // namespace

constinit const Task kv_retrieval_task = {"kv-retrieval",
                                          "the value of one key in a long list of random pairs; reads no text",
                                          "arXiv:2307.03172", Scoring::any, make};

}  // namespace lacuna::cli::task
