// SPDX-License-Identifier: Apache-2.0
// One needle among others that differ by what they are about only (RULER's multi-key needles, arXiv:2404.06654).
#include <fmt/format.h>

#include "cli/task/haystack.h"
#include "cli/task/names.h"

namespace lacuna::cli::task {

namespace {

constexpr std::size_t kKeys = 6;

bool make(const Request& request, Rng rng, Sample& sample, std::string& error) {
  const std::vector<std::string> keys = things(rng, kKeys);
  std::vector<Hidden> hidden;
  std::string asked;  // the secret of the first key
  for (const std::string& key : keys) {
    const std::string secret = number(rng, 7);
    if (asked.empty()) asked = secret;
    hidden.push_back({rng.uniform(), fmt::format("The secret number of the {} is {}.", key, secret)});
  }
  return from_text(
      request, rng,
      [&](std::string_view text) {
        Sample s;
        s.context = hide(text, hidden);
        s.turns = {{fmt::format("The text above tells several secret numbers. What is the one of the {}?", keys[0]),
                    fmt::format("The secret number of the {} is", keys[0]),
                    {asked}}};
        s.answer_tokens = 16;
        s.depth = hidden[0].depth;
        return s;
      },
      sample, error);
}

}  // namespace

constinit const Task multi_key_task = {"multi-key", "one of six hidden sentences that differ in their subject only",
                                       "arXiv:2404.06654", Scoring::any, make};

}  // namespace lacuna::cli::task
