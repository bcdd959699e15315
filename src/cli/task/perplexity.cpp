// SPDX-License-Identifier: Apache-2.0
// How well the model foretells a text: exp of the mean negative log-likelihood of the second half of each piece, so
// that each token has at least half the length before it.
#include "cli/task/haystack.h"

namespace lacuna::cli::task {

namespace {

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  return from_text(
      request, rng,
      [](std::string_view text) {
        Sample s;
        s.context = text;
        s.scoring = Scoring::perplexity;
        s.answer_tokens = 0;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task perplexity_task = {
    "perplexity", "how well the text is foretold, over the second half of each piece; lower is better", "",
    Scoring::perplexity, make};

}  // namespace lacuna::cli::task
