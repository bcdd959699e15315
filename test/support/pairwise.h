// SPDX-License-Identifier: Apache-2.0
// Pairwise covering: a short list of cases in which every pair of levels of any two factors occurs.
//
// LACUNA_FULL=1 is the long run: the product of the first factors, all others drawn by chance.
// LACUNA_SEED=n draws other numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "base/rng.h"

namespace lacuna::test {

using Levels = std::vector<int>;  // one level per factor

inline bool full_run() {
  const char* text = std::getenv("LACUNA_FULL");
  return text && std::string_view(text) == "1";
}

inline std::uint64_t seed_shift() {
  const char* text = std::getenv("LACUNA_SEED");
  return text ? std::strtoull(text, nullptr, 10) * 100000 : 0;
}

// Every combination of levels of the first `in_full` factors.
inline std::vector<Levels> product(const std::vector<int>& counts, std::size_t in_full, std::uint64_t seed) {
  Rng rng(seed);
  std::size_t total = 1;
  for (std::size_t f = 0; f < in_full; ++f) total *= static_cast<std::size_t>(counts[f]);
  std::vector<Levels> cases;
  for (std::size_t i = 0; i < total; ++i) {
    Levels x(counts.size());
    std::size_t rest = i;
    for (std::size_t f = 0; f < counts.size(); ++f) {
      const auto n = static_cast<std::size_t>(counts[f]);
      x[f] = static_cast<int>(f < in_full ? rest % n : rng.below(n));
      if (f < in_full) rest /= n;
    }
    cases.push_back(x);
  }
  return cases;
}

// Greedy: every case is the best of some random ones, each seeded with a pair not yet covered.
inline std::vector<Levels> pairwise(const std::vector<int>& counts, std::uint64_t seed) {
  const std::size_t n = counts.size();
  Rng rng(seed);
  std::vector<std::size_t> offset(n * n, 0);
  std::size_t total = 0;
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = a + 1; b < n; ++b) {
      offset[a * n + b] = total;
      total += static_cast<std::size_t>(counts[a]) * counts[b];
    }
  std::vector<bool> covered(total, false);
  const auto pair = [&](const Levels& x, std::size_t a, std::size_t b) {
    return offset[a * n + b] + static_cast<std::size_t>(x[a]) * counts[b] + x[b];
  };
  std::vector<Levels> cases;
  for (std::size_t open = 0;;) {
    while (open < total && covered[open]) ++open;
    if (open == total) return cases;
    std::size_t fa = 0, fb = 1;  // the factors of pair `open`
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = a + 1; b < n; ++b)
        if (offset[a * n + b] <= open && open < offset[a * n + b] + static_cast<std::size_t>(counts[a]) * counts[b]) fa = a, fb = b;
    const auto within = static_cast<int>(open - offset[fa * n + fb]);
    Levels best;
    std::size_t best_new = 0;
    for (int attempt = 0; attempt < 60; ++attempt) {
      Levels x(n);
      for (std::size_t f = 0; f < n; ++f) x[f] = static_cast<int>(rng.below(static_cast<std::uint64_t>(counts[f])));
      x[fa] = within / counts[fb];
      x[fb] = within % counts[fb];
      std::size_t fresh = 0;
      for (std::size_t a = 0; a < n; ++a)
        for (std::size_t b = a + 1; b < n; ++b) fresh += !covered[pair(x, a, b)];
      if (fresh > best_new) {
        best_new = fresh;
        best = x;
      }
    }
    for (std::size_t a = 0; a < n; ++a)
      for (std::size_t b = a + 1; b < n; ++b) covered[pair(best, a, b)] = true;
    cases.push_back(best);
  }
}

}  // namespace lacuna::test
