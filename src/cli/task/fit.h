// SPDX-License-Identifier: Apache-2.0
// The largest sample that fits: how many bytes of text, or entries of a list, the tokens hold.
#pragma once

#include <cstddef>
#include <functional>

#include "cli/task/task.h"

namespace lacuna::cli::task {

struct Fit {
  Sample sample;
  std::size_t size = 0;
  long long tokens = 0;  // of the sample; more than asked only when `least` is too large already
  long long least_tokens = 0;
  bool fits = false, full = false;  // full: hardly any token is left over
};

// `build(size)` for a size in least..most. Sizes are tried in proportion to their tokens, some five of them: counting
// tokens is what takes the time. Up to half a percent of the tokens may stay unused.
Fit fit(const Request& request, std::size_t least, std::size_t most, const std::function<Sample(std::size_t)>& build);

}  // namespace lacuna::cli::task
