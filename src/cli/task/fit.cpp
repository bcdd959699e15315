// SPDX-License-Identifier: Apache-2.0
#include "cli/task/fit.h"

#include <algorithm>

namespace lacuna::cli::task {

Fit fit(const Request& request, std::size_t least, std::size_t most, const std::function<Sample(std::size_t)>& build) {
  constexpr int kMostTries = 16;
  constexpr double kUnitsPerToken = 4;  // a first guess: bytes of English
  Fit best;
  best.sample = build(least);
  best.size = least;
  best.tokens = best.least_tokens = request.tokens_of(best.sample);
  best.fits = best.tokens <= request.tokens;
  const long long slack = request.tokens / 200 + 1, room = request.tokens - best.least_tokens;
  best.full = room <= slack;
  if (!best.fits) return best;
  std::size_t too_large = most + 1;
  double units_per_token = kUnitsPerToken;
  for (int i = 0; i < kMostTries && !best.full && too_large - best.size > 1; ++i) {
    const std::size_t guess = least + static_cast<std::size_t>(static_cast<double>(room) * units_per_token);
    const std::size_t size = std::clamp(guess, best.size + 1, too_large - 1);
    Sample sample = build(size);
    const long long tokens = request.tokens_of(sample);
    if (tokens > best.least_tokens)
      units_per_token = static_cast<double>(size - least) / static_cast<double>(tokens - best.least_tokens);
    if (tokens > request.tokens) {
      too_large = size;
      continue;
    }
    best.sample = std::move(sample);
    best.size = size;
    best.tokens = tokens;
    best.full = request.tokens - tokens <= slack;
  }
  return best;
}

}  // namespace lacuna::cli::task
