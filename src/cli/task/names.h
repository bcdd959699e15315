// SPDX-License-Identifier: Apache-2.0
// What tasks hide: numbers, and things they belong to.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace lacuna::cli::task {

// `n` digits, the first not 0.
std::string number(Rng& rng, int n);
// `n` different things, e.g. "lighthouse"; at most 40.
std::vector<std::string> things(Rng& rng, std::size_t n);
// In random order.
template <class T>
void shuffle(Rng& rng, std::vector<T>& list) {
  for (std::size_t i = list.size(); i > 1; --i) std::swap(list[i - 1], list[rng.below(i)]);
}

}  // namespace lacuna::cli::task
