// SPDX-License-Identifier: Apache-2.0
// Needle in a haystack, as a grid: the samples of a length hide one sentence at evenly spaced depths, from before the
// text to behind it (RULER's single needle in essays, arXiv:2404.06654).
#include <algorithm>

#include <fmt/format.h>

#include "cli/task/haystack.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr int kMostDepths = 11;  // more samples hide other sentences at the same depths

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const int depths = std::min(request.samples, kMostDepths);
  const double depth = depths == 1 ? 0.5 : static_cast<double>(request.index % depths) / (depths - 1);
  const std::string thing = things(rng, 1)[0], secret = number(rng, 7);
  return from_text(
      request, rng,
      [&](std::string_view text) {
        Sample s;
        s.context = hide(text, {{depth, fmt::format("The secret number of the {} is {}.", thing, secret)}});
        s.turns = {{fmt::format("What is the secret number of the {} that the text above speaks of?", thing),
                    fmt::format("The secret number of the {} is", thing),
                    {secret}}};
        s.answer_tokens = 16;
        s.depth = depth;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task needle_task = {"needle", "a sentence hidden in a text, at evenly spaced depths",
                                    "arXiv:2404.06654", Scoring::any, make};

}  // namespace lacuna::cli::task
