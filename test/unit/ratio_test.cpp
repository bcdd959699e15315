// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/ratio.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <gtest/gtest.h>

namespace lacuna::cli {
namespace {

std::vector<double> times(std::mt19937& random, std::size_t n, double middle, double scatter) {
  std::lognormal_distribution<double> draw(std::log(middle), scatter);
  std::vector<double> out(n);
  std::generate(out.begin(), out.end(), [&] { return draw(random); });
  return out;
}

TEST(Ratio, OfSmallSeriesByHand) {
  // 16 ratios; with 4 against 4 the outermost may lie outside: 2 of 70 orders are as far from even.
  const Ratio r = ratio_of({2, 2.2, 2.4, 2.6}, {1, 1, 1, 1});
  EXPECT_DOUBLE_EQ(r.ratio, 2.3);
  EXPECT_DOUBLE_EQ(r.low, 2);
  EXPECT_DOUBLE_EQ(r.high, 2.6);
  EXPECT_EQ(r.verdict, Verdict::slower);
  EXPECT_EQ(ratio_of({1, 1, 1, 1}, {2, 2.2, 2.4, 2.6}).verdict, Verdict::faster);
}

TEST(Ratio, TurnedAroundItIsTheReciprocal) {
  std::mt19937 random(1);
  for (const auto& [n, m] : {std::pair{5, 9}, {20, 20}, {30, 31}}) {
    const auto a = times(random, static_cast<std::size_t>(n), 3, 0.1), b = times(random, static_cast<std::size_t>(m), 2, 0.2);
    const Ratio there = ratio_of(a, b), back = ratio_of(b, a);
    EXPECT_NEAR(there.low * back.high, 1, 1e-12);
    EXPECT_NEAR(there.high * back.low, 1, 1e-12);
  }
}

// The interval holds the true factor in 95 of 100 cases, few rounds or many, exact or by the normal approximation.
TEST(Ratio, CoversTheFactor) {
  std::mt19937 random(2);
  for (const auto& [n, m] : {std::pair{4, 4}, {7, 5}, {20, 20}, {21, 20}, {101, 9}, {101, 4}, {60, 60}}) {
    constexpr int kTrials = 2000;
    int held = 0;
    for (int i = 0; i < kTrials; ++i) {
      const Ratio r = ratio_of(times(random, static_cast<std::size_t>(n), 1.2, 0.1), times(random, static_cast<std::size_t>(m), 1, 0.1));
      held += r.low <= 1.2 && 1.2 <= r.high;
    }
    EXPECT_GE(held, 0.935 * kTrials) << n << " against " << m;  // 0.95 less three standard errors
    EXPECT_LE(held, 0.985 * kTrials) << n << " against " << m;  // and no wider than it must be
  }
}

TEST(Ratio, NoiseIsNeitherFasterNorSlower) {
  std::mt19937 random(3);
  int told = 0;
  for (int i = 0; i < 1000; ++i) told += ratio_of(times(random, 20, 1, 0.1), times(random, 20, 1, 0.1)).verdict != Verdict::noise;
  EXPECT_LE(told, 5);
  // However far apart: the intervals decide.
  const Ratio wide = ratio_of({1, 1.3, 1.6, 3}, {0.9, 1, 1.2, 1.9});
  EXPECT_GT(wide.ratio, 1 + kBetweenProcesses);
  EXPECT_EQ(wide.verdict, Verdict::noise);
  // However sure: what processes differ by anyway is noise.
  EXPECT_EQ(ratio_of(std::vector<double>(50, 1.09), std::vector<double>(50, 1.0)).verdict, Verdict::noise);
  EXPECT_EQ(ratio_of(std::vector<double>(50, 1.11), std::vector<double>(50, 1.0)).verdict, Verdict::slower);
}

}  // namespace
}  // namespace lacuna::cli
