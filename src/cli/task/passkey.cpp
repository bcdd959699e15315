// SPDX-License-Identifier: Apache-2.0
// Passkey retrieval (Mohtashami and Jaggi 2023, arXiv:2305.16300): a number that stands once in a long text, at a
// random depth. There the text was one sentence over and over; here it is a real one.
#include <fmt/format.h>

#include "cli/task/haystack.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const std::string key = number(rng, 5);
  const double depth = rng.uniform();
  return from_text(
      request, rng,
      [&](std::string_view text) {
        Sample s;
        s.context =
            "Somewhere in the text below stands a pass key. Find it and keep it in mind.\n\n" +
            hide(text, {{depth, fmt::format("The pass key is {0}. Keep it in mind: {0} is the pass key.", key)}});
        s.turns = {{"What is the pass key?", "The pass key is", {key}}};
        s.answer_tokens = 12;
        s.depth = depth;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task passkey_task = {"passkey", "a number that stands once in a long text, at a random depth",
                                     "arXiv:2305.16300", Scoring::any, make};

}  // namespace lacuna::cli::task
