// SPDX-License-Identifier: Apache-2.0
// FlexPrefill: the proofs of its sheet.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_flexprefill();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

double density(const Plan& p, const Grid& g, std::int32_t h) {
  double kept = 0, all = 0;
  for (std::int32_t i = 0; i < g.n_rows; ++i)
    for (std::int64_t j = 0; j <= g.first_key + i; ++j, ++all) kept += keeps(p, g, h, i, j);
  return kept / all;
}

TEST(FlexPrefill, AllMassAndABudgetOfEverythingAreDense) {
  MethodLab lab(2, 1, 400, 16, 2);
  const Grid g{2, 400, 400, 0};
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_flexprefill(), {{"block", 32}, {"min_budget", 400}}), 0, 400).value()));
  auto p = lab.plan(*make(method_entry_flexprefill(), {{"block", 32}, {"mass", 1}, {"min_budget", 32}}), 0, 400);
  ASSERT_TRUE(p.ok());
  for (int h = 0; h < 2; ++h) EXPECT_DOUBLE_EQ(density(p.value(), g, h), 1.0) << "random scores: every line has mass";
}

TEST(FlexPrefill, EveryRowHasItsOwnBlockAndBlockZero) {
  for (const std::int64_t begin : {0, 32, 57}) {
    MethodLab lab(2, 2, begin + 300, 16, 6);
    auto p = lab.plan(*make(method_entry_flexprefill(), {{"block", 32}, {"mass", 0.3}, {"min_budget", 32}}), begin, begin + 300);
    ASSERT_TRUE(p.ok());
    ASSERT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
    const Grid g{2, 300, begin + 300, begin};
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < 300; ++i) {
        EXPECT_TRUE(keeps(p.value(), g, h, i, 0));
        EXPECT_TRUE(keeps(p.value(), g, h, i, begin + i));
      }
  }
}

// One head whose keys are alike within blocks (pooling is exact: query-aware), one with a sharp slash
// (pooling sees nothing of it): the slash stays in, at every row, and the first head follows its rows.
TEST(FlexPrefill, ChoosesTheRouteByHowFarPoolingCanBeTrusted) {
  constexpr int kN = 1024, kD = 64, kDistance = 300;
  MethodLab lab(2, 2, kN, kD, 9);
  for (int i = 0; i < kN; ++i) {
    for (int c = 0; c < kD; ++c) {
      lab.k_at(0, i)[c] = c == i / 64 ? 8.0f : 0.0f;                       // block b lives in channel b
      lab.q_at(0, i)[c] = c == (i / 64 * 7) % (i / 64 + 1) ? 8.0f : 0.0f;  // row block u looks at one block
    }
    for (int c = 0; c < kD && i >= kDistance; ++c) lab.q_at(1, i)[c] = 3 * lab.k_at(1, i - kDistance)[c];
  }
  auto p = lab.plan(*make(method_entry_flexprefill(), {{"block", 64}, {"mass", 0.9}, {"min_budget", 64}, {"divergence", 0.1}}), 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g{2, kN, kN, 0};
  for (int i = 64; i < kN; i += 37) EXPECT_TRUE(keeps(p.value(), g, 0, i, (i / 64 * 7) % (i / 64 + 1) * 64)) << i;
  EXPECT_LT(density(p.value(), g, 0), 0.45);
  // The one block diagonal of the official code covers the distances up to the block's first.
  for (int i = kDistance + 64; i < kN; i += 41)
    EXPECT_TRUE(keeps(p.value(), g, 1, i, (i / 64 - kDistance / 64) * 64)) << i;
  EXPECT_LT(density(p.value(), g, 1), 0.6);
}

TEST(FlexPrefill, NamesWhatDoesNotFit) {
  EXPECT_NE(make(method_entry_flexprefill(), {{"block", 48}})->check().error().what.find("flexprefill.block: got 48"), std::string::npos);
  EXPECT_NE(make(method_entry_flexprefill(), {{"min_budget", 256}, {"max_budget", 128}})->check().error().what.find("max_budget: got 128"),
            std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
