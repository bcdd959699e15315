// SPDX-License-Identifier: Apache-2.0
#include "account/loss.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lacuna {
namespace {

TEST(Loss, StudentAsInTables) {
  EXPECT_NEAR(student_95(3), 2.3534, 0.01 * 2.3534);
  EXPECT_NEAR(student_95(10), 1.8125, 1e-3);
  EXPECT_NEAR(student_95(1e9), 1.6449, 1e-4);
}

TEST(Loss, WithoutChanceTheMeanIsTheBound) {
  LossCounter c;
  for (const double x : {0.1, 0.3}) c.add(x);
  EXPECT_DOUBLE_EQ(c.stats().upper, 0.2);
}

TEST(Loss, AFewDrawsSayNothing) {
  LossCounter c;
  for (int i = 0; i < 3; ++i) {
    c.add(0.01);
    c.end_draw();
  }
  EXPECT_EQ(c.stats().upper, 1.0);
  c.end_draw();  // an empty one is none
  EXPECT_EQ(c.stats().upper, 1.0);
}

// Runs of calls that differ, of which each draw is one row with four heads that are alike: the bound holds in 95 of 100 runs or more,
// and is no wider than it must be.
TEST(Loss, TheBoundHoldsAsOftenAsItSays) {
  constexpr int kRuns = 2000, kCalls = 60, kHeads = 4;
  Rng rng(5);
  int held = 0;
  double width = 0;
  for (int run = 0; run < kRuns; ++run) {
    LossCounter c;
    double truth = 0;
    for (int call = 0; call < kCalls; ++call) {
      // Losses of a call's rows: squares of uniform numbers, scaled by the call.
      const double scale = 0.02 * (1 + call % 5);
      truth += scale / 3 / kCalls;
      const double u = static_cast<double>(rng.below(1u << 30)) / (1u << 30);
      for (int h = 0; h < kHeads; ++h) c.add(scale * u * u);
      c.end_draw();
    }
    held += c.stats().upper >= truth;
    width += (c.stats().upper - truth) / truth / kRuns;
  }
  EXPECT_GE(held, kRuns * 94 / 100);
  EXPECT_LT(width, 0.4);
}

}  // namespace
}  // namespace lacuna
