// SPDX-License-Identifier: Apache-2.0
// UniSparse: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_unisparse();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

// The true mass of key block b over the rows of row block u, as a share of all of theirs.
double true_mass(MethodLab& lab, int h, int u, int b, int block) {
  double share = 0;
  for (std::int64_t i = u * block; i < (u + 1) * block; ++i) {
    double all = 0, part = 0;
    for (std::int64_t j = 0; j <= i; ++j) {
      const double weight = std::exp(lab.logit(h, i, j));
      all += weight;
      if (j / block == b) part += weight;
    }
    share += part / all / block;
  }
  return share;
}

// One token to a composite: the estimate is the attention itself, so what is kept is what its mass says.
TEST(UniSparse, WithARateOfOneBlocksAreChosenByTheirTrueMass) {
  constexpr int kN = 512, kBlock = 64;
  MethodLab lab(2, 1, kN, 16, 4);
  for (float& x : lab.q) x *= 4;
  auto p = lab.plan(*make(method_entry_unisparse(), {{"mass", 0.7}, {"rate", 1}, {"sink", 0}}), 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g{2, kN, kN, 0};
  for (int h = 0; h < 2; ++h)
    for (int u = 0; u < kN / kBlock; ++u) {
      double kept = true_mass(lab, h, u, u, kBlock), least_kept = 1, most_left = 0;  // the own block is always kept
      for (int b = 0; b < u; ++b) {
        const double mass = true_mass(lab, h, u, b, kBlock);
        // The last row of a row block sees all of its blocks.
        if (keeps(p.value(), g, h, u * kBlock + kBlock - 1, b * kBlock)) kept += mass, least_kept = std::min(least_kept, mass);
        else most_left = std::max(most_left, mass);
      }
      EXPECT_GE(kept, 0.7 - 1e-4) << h << ' ' << u;
      EXPECT_LT(kept - least_kept, 0.7 + 1e-4) << h << ' ' << u << ": none too many";
      EXPECT_LE(most_left, least_kept + 1e-5) << h << ' ' << u;
    }
}

TEST(UniSparse, AllMassIsDense) {
  MethodLab lab(2, 1, 400, 16);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_unisparse(), {{"mass", 1}}), 0, 400).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_unisparse()), 0, 100).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_unisparse()), 399, 400).value()));
}

// One heavy key to a block: means of 8 keys show it, the mean of the whole block drowns it.
TEST(UniSparse, FinerCompositesFindASingleHeavyKey) {
  constexpr int kN = 1024, kHeavy = 130;
  const auto kept = [&](double rate) {
    MethodLab lab(1, 1, kN, 16, 8);
    for (int j = 0; j < kN; ++j)
      for (int c = 0; c < 16; ++c) {
        lab.k_at(0, j)[c] = c > 0 ? 0.0f : j == kHeavy ? 120.0f : j / 64 == kHeavy / 64 ? -4.0f : -1.5f;
        lab.q_at(0, j)[c] = c == 0 ? 2.0f : 0.0f;
      }
    auto p = lab.plan(*make(method_entry_unisparse(), {{"mass", 0.5}, {"rate", rate}, {"sink", 0}, {"window", 1}}), 0, kN);
    const Grid g{1, kN, kN, 0};
    int rows = 0;
    for (int i = 256; i < kN; ++i) rows += keeps(p.value(), g, 0, i, kHeavy) && !keeps(p.value(), g, 0, i, 64);
    return rows;
  };
  EXPECT_EQ(kept(8), kN - 256);
  EXPECT_EQ(kept(64), 0);
}

// Heads of a group that are alike lose nothing by sharing; heads of different KV heads never share.
TEST(UniSparse, SharesScoresWithinTheGroupOnly) {
  constexpr int kN = 512;
  MethodLab lab(4, 2, kN, 16, 6);
  for (float& x : lab.q) x *= 4;
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 16; ++c) lab.q_at(1, i)[c] = lab.q_at(0, i)[c];
  const auto plan = [&](double heads) {
    return lab.plan(*make(method_entry_unisparse(), {{"mass", 0.6}, {"rate", 8}, {"head_group", heads}}), 0, kN).value();
  };
  const Plan apart = plan(1), shared = plan(2), more = plan(4);
  const Grid g{4, kN, kN, 0};
  int differ = 0;
  for (int i = 0; i < kN; i += 5)
    for (int j = 0; j <= i; j += 16) {
      for (int h = 0; h < 4; ++h) EXPECT_EQ(keeps(shared, g, h, i, j), keeps(more, g, h, i, j)) << "two heads to a KV head";
      for (int h = 0; h < 2; ++h) EXPECT_EQ(keeps(apart, g, h, i, j), keeps(shared, g, h, i, j)) << h << ' ' << i << ' ' << j;
      EXPECT_EQ(keeps(shared, g, 2, i, j), keeps(shared, g, 3, i, j));
      differ += keeps(apart, g, 2, i, j) != keeps(apart, g, 3, i, j);
    }
  EXPECT_GT(differ, 0) << "these two are not alike";
}

TEST(UniSparse, NamesWhatDoesNotFit) {
  const auto why = [](std::initializer_list<std::pair<const char*, double>> values) {
    return make(method_entry_unisparse(), values)->check().error().what;
  };
  EXPECT_NE(why({{"block", 96}}).find("unisparse.block: got 96"), std::string::npos);
  EXPECT_NE(why({{"rate", 24}}).find("unisparse.rate: got 24"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
