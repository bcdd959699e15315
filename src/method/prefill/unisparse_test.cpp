// SPDX-License-Identifier: Apache-2.0
// UniSparse: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

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

// One composite to a block: the estimate is mean pooling, the softmax of mean query . mean key.
TEST(UniSparse, WithARateOfTheBlockItIsMeanPooling) {
  constexpr int kN = 1024, kBlock = 64, kD = 16;
  constexpr double kMass = 0.8;
  MethodLab lab(2, 1, kN, kD, 12);
  for (float& x : lab.q) x *= 20;  // the means of random tokens are small
  const Plan p = lab.plan(*make(method_entry_unisparse(), {{"mass", kMass}, {"rate", kBlock}, {"block", kBlock}, {"sink", 0}}), 0, kN).value();
  const Grid g{2, kN, kN, 0};
  const auto mean = [&](const float* first, int c) {
    double sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += first[i * kD + c];
    return sum / kBlock;
  };
  int left = 0;
  for (int h = 0; h < 2; ++h)
    for (int u = 0; u < kN / kBlock; ++u) {
      std::vector<double> mass;
      double all = 0;
      for (int b = 0; b <= u; ++b) {
        double score = 0;
        for (int c = 0; c < kD; ++c) score += mean(lab.q_at(h, u * kBlock), c) * mean(lab.k_at(0, b * kBlock), c);
        mass.push_back(std::exp(score / std::sqrt(static_cast<double>(kD))));
        all += mass.back();
      }
      std::vector<int> order(static_cast<std::size_t>(u));
      std::iota(order.begin(), order.end(), 0);
      std::sort(order.begin(), order.end(), [&](int a, int b) { return mass[a] > mass[b]; });
      std::vector<bool> wanted(static_cast<std::size_t>(u + 1), false);
      wanted[u] = true;  // the own block
      double have = mass[u] / all;
      for (const int b : order) {
        if (have >= kMass) break;
        wanted[b] = true;
        have += mass[b] / all;
      }
      for (int b = 0; b <= u; ++b) {
        EXPECT_EQ(keeps(p, g, h, u * kBlock + kBlock - 1, b * kBlock), wanted[b]) << h << ' ' << u << ' ' << b;
        left += !wanted[b];
      }
    }
  EXPECT_GT(left, 30) << "nothing was chosen";
}

// Planted: six heavy keys whose neighbours look away, three within the 16 tokens around and three within the 64. A mean over
// these hides the key. The true mass of the best choice within a number of blocks.
TEST(UniSparse, FinerCompositesChooseBetterWithinABudget) {
  constexpr int kN = 1024, kBlock = 64, kD = 16, kBlocks = kN / kBlock;
  constexpr std::pair<int, int> kHeavy[] = {{70, 16}, {155, 64}, {250, 16}, {333, 64}, {420, 16}, {505, 64}};
  MethodLab lab(1, 1, kN, kD, 21);
  for (int i = 0; i < kN; ++i) lab.q_at(0, i)[0] = 16, lab.k_at(0, i)[0] = 0;
  for (const auto& [key, around] : kHeavy) {
    const int first = key / around * around, own = key / 4;  // its composite of four has no such neighbour
    for (int j = first; j < first + around; ++j)
      if (j / 4 != own) lab.k_at(0, j)[0] = -18.0f / static_cast<float>(around - 4);
    lab.k_at(0, key)[0] = 12;
  }
  std::vector<double> truth(kBlocks * kBlocks);
  for (int u = 8; u < kBlocks; ++u)
    for (int b = 0; b <= u; ++b) truth[u * kBlocks + b] = true_mass(lab, 0, u, b, kBlock);
  const Grid g{1, kN, kN, 0};
  const auto within_budget = [&](int rate, int budget) {
    double best = 0;
    for (double mass = 0.02; mass < 1; mass += 0.02) {
      const Plan p = lab.plan(*make(method_entry_unisparse(), {{"mass", mass}, {"rate", rate}, {"sink", 0}}), 0, kN).value();
      int blocks = 0;
      double kept = 0;
      for (int u = 8; u < kBlocks; ++u)
        for (int b = 0; b <= u; ++b)
          if (keeps(p, g, 0, u * kBlock + kBlock - 1, b * kBlock)) ++blocks, kept += truth[u * kBlocks + b] / (kBlocks - 8);
      if (blocks <= budget) best = std::max(best, kept);
    }
    return best;
  };
  const double fine = within_budget(4, 56), middle = within_budget(16, 56), coarse = within_budget(64, 56);
  EXPECT_GT(fine, middle + 0.2) << fine << ' ' << middle << ' ' << coarse;
  EXPECT_GT(middle, coarse + 0.2) << fine << ' ' << middle << ' ' << coarse;
}

// A KV head alone has the plan that it has among others.
TEST(UniSparse, GroupsOfHeadsAreWithinAKvHead) {
  constexpr int kN = 512;
  MethodLab lab(4, 2, kN, 16, 7), alone(2, 1, kN, 16, 7);
  for (float& x : lab.q) x *= 4;
  std::copy(lab.q.begin() + 2 * kN * 16, lab.q.end(), alone.q.begin());
  std::copy(lab.k.begin() + kN * 16, lab.k.end(), alone.k.begin());
  const auto method = make(method_entry_unisparse(), {{"mass", 0.6}, {"rate", 8}, {"head_group", 4}});
  const Plan all = lab.plan(*method, 0, kN).value(), one = alone.plan(*method, 0, kN).value();
  int left = 0;
  for (int i = 0; i < kN; i += 3)
    for (int j = 0; j <= i; j += 16)
      for (int h = 0; h < 2; ++h) {
        EXPECT_EQ(keeps(all, {4, kN, kN, 0}, 2 + h, i, j), keeps(one, {2, kN, kN, 0}, h, i, j)) << h << ' ' << i << ' ' << j;
        left += !keeps(one, {2, kN, kN, 0}, h, i, j);
      }
  EXPECT_GT(left, 0);
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
