// SPDX-License-Identifier: Apache-2.0
#include "block/budget/top_mass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"
#include "block/fast_exp.h"

namespace lacuna::block {
namespace {

// The definition: sort, then walk.
std::vector<std::int32_t> by_sorting(const std::vector<float>& s, std::int32_t first, std::int32_t last, double mass, TopMass mode) {
  const auto n = static_cast<std::int32_t>(s.size());
  last = std::max(first, last);
  std::vector<std::int32_t> kept, free;
  double sum = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    if (i < first || i >= last) kept.push_back(i), sum += s[static_cast<std::size_t>(i)];
    else free.push_back(i);
  }
  const double target = mass * std::accumulate(s.begin(), s.end(), 0.0);
  std::stable_sort(free.begin(), free.end(), [&](int a, int b) { return s[static_cast<std::size_t>(a)] > s[static_cast<std::size_t>(b)]; });
  for (std::int32_t i : free) {
    const float x = s[static_cast<std::size_t>(i)];
    if (mode == TopMass::reach ? sum >= target : sum + x > target) break;
    kept.push_back(i);
    sum += x;
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

TEST(TopMass, EqualsSortingForEveryModeAndForcedPart) {
  Rng rng(11);
  for (int round = 0; round < 4000; ++round) {
    const auto n = static_cast<std::int32_t>(rng.below(40));
    std::vector<float> s(static_cast<std::size_t>(n));
    // Multiples of 1/64: sums are exact, so that both orders of adding agree; many ties.
    for (float& x : s) x = static_cast<float>(rng.below(round % 2 ? 9 : 200)) / 64.0f;
    const auto first = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(std::min(n, 3) + 1)));
    const auto last = n - static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(std::min(n, 3) + 1)));
    const double mass = static_cast<double>(1 + rng.below(64)) / 64;
    for (TopMass mode : {TopMass::reach, TopMass::within}) {
      std::vector<float> work(static_cast<std::size_t>(n) + 1);
      std::vector<std::int32_t> kept(static_cast<std::size_t>(n) + 1, -7);
      kept.resize(static_cast<std::size_t>(top_mass(s.data(), n, first, last, mass, mode, work.data(), kept.data())));
      ASSERT_EQ(kept, by_sorting(s, first, last, mass, mode)) << "round " << round << " n=" << n << " mass=" << mass;
    }
  }
}

TEST(FastExp, RelativeErrorAndEnds) {
  double worst = 0;
  for (double x = -87; x <= 0; x += 0.00137)
    worst = std::max(worst, std::abs(fast_exp(static_cast<float>(x)) / std::exp(static_cast<double>(static_cast<float>(x))) - 1));
  EXPECT_LT(worst, 6e-6);
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_LT(fast_exp(-INFINITY), 1e-37f);
  EXPECT_LT(fast_exp(NAN), 1e-37f);
}

}  // namespace
}  // namespace lacuna::block
