// SPDX-License-Identifier: Apache-2.0
#include "engine/chooser.h"

#include <gtest/gtest.h>

namespace lacuna {
namespace {

// Dense takes 1 per pair; the candidate chooses for `pair` per row and key, and attends at the same price.
CostModel costs(double select_pair) {
  PhaseCost p;
  p.pair = 1;
  p.candidates.push_back({"a", {0, 0, select_pair}, 1});
  return {p, p};
}
Chooser::Call prompt(int layer, std::int64_t keys) {
  return {.layer = layer, .phase = Phase::prefill, .rows = 512, .keys = keys, .pairs = 512.0 * static_cast<double>(keys)};
}

TEST(Chooser, IsDenseWhereChoosingCostsMoreThanDense) {
  Chooser c({"a"}, {}, 0.01);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(c.choose(prompt(0, 8192), costs(0.96)).candidate, -1);
  EXPECT_NE(c.summary().find("below the crossover"), std::string::npos) << c.summary();
}

// Trials that never pay: their cost stays within 1 % of dense attention.
TEST(Chooser, TrialsAreBoundedByWhatDenseCost) {
  const CostModel m = costs(0.3);
  Chooser c({"a"}, {}, 0.01);
  double dense = 0, spent = 0;
  int trials = 0;
  for (int i = 0; i < 4000; ++i) {
    const auto call = prompt(i % 8, 1024 << (i / 1000));
    const auto choice = c.choose(call, m);
    dense += m.prefill.dense(call.pairs);
    if (choice.candidate < 0) continue;
    ++trials;
    c.saw(call, choice, m, 0.95, 0, 10);
    spent += m.prefill.sparse(0, 512, static_cast<double>(call.keys), call.pairs, 0.95) - m.prefill.dense(call.pairs);
    EXPECT_LE(spent, 0.01 * dense);
  }
  EXPECT_GE(trials, 8);       // every layer was tried
  EXPECT_LE(trials, 8 * 4);   // and again only when the prompt had grown
}

TEST(Chooser, TakesWhatPaysAndOnlyThere) {
  const CostModel m = costs(0.1);
  Chooser c({"a"}, {}, 0.01);
  int taken[2] = {};
  for (int i = 0; i < 2000; ++i) {
    const auto call = prompt(i % 2, 4096);
    const auto choice = c.choose(call, m);
    if (choice.candidate < 0) continue;
    ++taken[i % 2];
    c.saw(call, choice, m, i % 2 ? 0.3 : 0.97, 0, 10);
  }
  EXPECT_EQ(taken[0], 1);
  EXPECT_GT(taken[1], 900);
}

TEST(Chooser, PrefersTheCheaperOfTwo) {
  CostModel m = costs(0.1);
  m.prefill.candidates.push_back({"b", {0, 0, 0.02}, 1});
  Chooser c({"a", "b"}, {}, 0.01);
  int last = -1;
  for (int i = 0; i < 1000; ++i) {
    const auto call = prompt(0, 4096);
    const auto choice = c.choose(call, m);
    if (choice.candidate < 0) continue;
    c.saw(call, choice, m, 0.3, 0, 10);
    last = choice.candidate;
  }
  EXPECT_EQ(last, 1);
}

TEST(Chooser, LeavesACandidateThatLosesTooMuch) {
  const CostModel m = costs(0.1);
  Chooser c({"a"}, {}, 0.01);
  int taken = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto call = prompt(0, 4096);
    const auto choice = c.choose(call, m);
    if (choice.candidate < 0) continue;
    ++taken;
    EXPECT_TRUE(choice.trial) << "audited until enough is known";
    c.saw(call, choice, m, 0.2, 9 * 0.015, 9);
  }
  EXPECT_EQ(taken, 2);  // 9 rows of 0.015 could still come to 0.01 of 16; 18 cannot
  EXPECT_NE(c.summary().find("lose more than 0.01"), std::string::npos) << c.summary();
}

TEST(Chooser, LeavesACandidateAtOnceWhereTheLossIsLarge) {
  const CostModel m = costs(0.1);
  Chooser c({"a"}, {}, 0.01);
  int taken = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto choice = c.choose(prompt(0, 4096), m);
    if (choice.candidate < 0) continue;
    ++taken;
    c.saw(prompt(0, 4096), choice, m, 0.2, 9 * 0.06, 9);
  }
  EXPECT_EQ(taken, 1);
}

TEST(Chooser, WithoutCostsIsDense) {
  Chooser c({"a"}, {}, 0.01);
  EXPECT_EQ(c.choose(prompt(0, 8192), CostModel{}).candidate, -1);
}

}  // namespace
}  // namespace lacuna
