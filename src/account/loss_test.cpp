// SPDX-License-Identifier: Apache-2.0
#include "account/loss.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace lacuna {
namespace {

double uniform(Rng& rng) { return static_cast<double>(rng.below(1u << 30)) / (1u << 30); }

void draw(LossCounter& c, double loss, bool sure = false) {
  c.add(loss);
  c.end_draw(sure);
}

TEST(Loss, WithoutChanceTheMeanIsTheBound) {
  LossCounter c;
  for (const double x : {0.1, 0.3}) draw(c, x, true);
  EXPECT_DOUBLE_EQ(c.stats().upper, 0.2);
}

TEST(Loss, AFewDrawsSayNothing) {
  LossCounter c;
  for (int i = 0; i < 3; ++i) draw(c, 0.01);
  EXPECT_EQ(c.stats().upper, 1.0);
  c.end_draw();  // an empty one is none
  EXPECT_EQ(c.draws(), 3);
}

// A thousand rows that are known to have lost nothing thin out what a few sampled ones may have lost.
TEST(Loss, SureDrawsThinOutTheBound) {
  LossCounter c;
  for (int i = 0; i < 3; ++i) draw(c, 0.0);
  for (int i = 0; i < 997; ++i) draw(c, 0.0, true);
  EXPECT_LT(c.stats().upper, 0.005);
  EXPECT_GT(c.stats().upper, 0.003);
}

// Runs whose draws follow `next(rng, counter, truth)`, which gives a loss and adds its true mean to `truth`: in how many of
// 1000 the bound fell below the true mean at any time.
template <class Next>
int broken_runs(int draws, Next next) {
  int broken = 0;
  Rng rng(5);
  for (int run = 0; run < 1000; ++run) {
    LossCounter c;
    double truth = 0;
    bool ever = false;
    for (int i = 0; i < draws; ++i) {
      draw(c, next(rng, c, truth));
      ever = ever || c.at_most(false) < truth;
    }
    broken += ever;
  }
  return broken;
}

// At most 5 % by its promise; how far below tells how much is given away.
TEST(Loss, TheBoundHoldsAtAllTimesAsOftenAsItSays) {
  // Calls that differ: squares of uniform numbers, scaled by the call.
  EXPECT_LE(broken_runs(400, [i = 0](Rng& rng, const LossCounter&, double& truth) mutable {
              const double scale = 0.02 * (1 + i++ % 5), u = uniform(rng);
              truth += scale / 3;
              return scale * u * u;
            }), 50);
  // Rare rows that lose all: no draw may have met one, and normal theory would say zero.
  const int rare = broken_runs(400, [](Rng& rng, const LossCounter&, double& truth) {
    truth += 0.01;
    return uniform(rng) < 0.01 ? 1.0 : 0.0;
  });
  EXPECT_LE(rare, 50);
  EXPECT_GT(rare, 0);
  // An adversary that loses more the less was seen so far.
  EXPECT_LE(broken_runs(400, [](Rng& rng, const LossCounter& c, double& truth) {
              const double chance = c.sum() < 0.01 * static_cast<double>(c.draws()) ? 0.02 : 0.001;
              truth += chance;
              return uniform(rng) < chance ? 1.0 : 0.0;
            }), 50);
}

TEST(Loss, ManyDrawsMakeTheBoundNarrow) {
  LossCounter c;
  Rng rng(7);
  for (int i = 0; i < 3300; ++i) draw(c, 0.01 * uniform(rng));
  EXPECT_NEAR(c.stats().mean, 0.005, 3e-4);
  EXPECT_LT(c.stats().upper, c.stats().mean + 0.0015);
}

}  // namespace
}  // namespace lacuna
