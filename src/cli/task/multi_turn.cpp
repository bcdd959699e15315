// SPDX-License-Identifier: Apache-2.0
// Several questions about one document, asked one after the other (SCBench's shared context, arXiv:2412.10319). The
// document is read once: what a method left out or evicted then is not there for a later question.
#include <fmt/format.h>

#include "cli/task/haystack.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr std::size_t kTurns = 4;

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  std::vector<Hidden> hidden;
  std::vector<Turn> turns;
  for (const std::string& thing : things(rng, kTurns)) {
    const std::string secret = number(rng, 7);
    const double depth = (static_cast<double>(turns.size()) + rng.uniform()) / kTurns;  // one in each quarter
    hidden.push_back({depth, fmt::format("The secret number of the {} is {}.", thing, secret)});
    turns.push_back({fmt::format("What is the secret number of the {} that the text speaks of?", thing),
                     fmt::format("The secret number of the {} is", thing),
                     {secret}});
  }
  shuffle(rng, turns);
  return from_text(
      request, rng,
      [&](std::string_view text) {
        Sample s;
        s.context = hide(text, hidden);
        s.turns = turns;
        s.answer_tokens = 16;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task multi_turn_task = {"multi-turn",
                                        "four questions one after the other about a document that is read once",
                                        "arXiv:2412.10319", Scoring::any, make};

}  // namespace lacuna::cli::task
