// SPDX-License-Identifier: Apache-2.0
// AnchorAttention: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_anchorattention();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

constexpr int kSink = 16, kBlock = 32, kSegment = 128;

std::unique_ptr<Method> with_gap(double gap, double margin = 0) {
  return make(method_entry_anchorattention(),
              {{"gap", gap}, {"sink", kSink}, {"block", kBlock}, {"segment", kSegment}, {"margin", margin}});
}

// The mask by the formula, element by element: does head h keep key j for row i (a key number) of the call [begin, end)?
bool wanted(MethodLab& lab, int h, std::int64_t begin, std::int64_t end, std::int64_t i, std::int64_t j, double gap, std::int64_t margin) {
  const std::int64_t first = begin + (i - begin) / kSegment * kSegment, stop = std::min<std::int64_t>(first + kSegment, end);
  const std::int64_t local = std::max<std::int64_t>(0, first - margin);
  if (j < kSink || j >= local) return true;
  for (std::int64_t u = first; u < stop; u += kBlock) {
    const std::int64_t u_end = std::min<std::int64_t>(u + kBlock, stop);
    double anchor = 0, score = 0;
    for (std::int64_t r = u; r < u_end; ++r) {
      double top = -std::numeric_limits<double>::infinity();
      for (std::int64_t k = 0; k <= r; ++k)
        if (k < kSink || k >= local) top = std::max(top, lab.logit(h, r, k));
      anchor += top / static_cast<double>(u_end - u);
      score += lab.logit(h, r, j) / static_cast<double>(u_end - u);
    }
    if (score + gap >= anchor) return true;
  }
  return false;
}

TEST(AnchorAttention, KeepsWhatTheFormulaKeeps) {
  for (const auto& [begin, end, margin] : {std::tuple{0, 500, 0}, {0, 512, 0}, {37, 450, 0}, {256, 461, 70}}) {
    MethodLab lab(4, 2, end, 16, 3);
    auto p = lab.plan(*with_gap(2.1, margin), begin, end);
    ASSERT_TRUE(p.ok());
    ASSERT_TRUE(std::get<Ranges>(p.value().pattern()).check().ok());
    const Grid g{4, end - begin, end, begin};
    int kept = 0, left = 0;
    for (int h = 0; h < 4; ++h)
      for (int i = begin + 5; i < end; i += 31)
        for (int j = 0; j <= i; ++j) {
          const bool is = keeps(p.value(), g, h, i - begin, j);
          ASSERT_EQ(is, wanted(lab, h, begin, end, i, j, 2.1, margin)) << h << ' ' << i << ' ' << j << " from " << begin;
          ++(is ? kept : left);
        }
    EXPECT_GT(kept, 500);
    EXPECT_GT(left, 500);
  }
}

// The two ends of the gap: the regions share out the keys, none twice and none left out.
TEST(AnchorAttention, AnyGapIsDenseAndNoneLeavesTheTwoRegions) {
  MethodLab lab(2, 1, 450, 16, 4);
  EXPECT_TRUE(is_dense(lab.plan(*with_gap(1e3), 0, 450).value()));
  const Plan all = lab.plan(*with_gap(999), 0, 450).value(), none = lab.plan(*with_gap(-1e3), 0, 450).value();
  ASSERT_TRUE(std::get<Ranges>(all.pattern()).check().ok());
  const Grid g{2, 450, 450, 0};
  for (int h = 0; h < 2; ++h)
    for (int i = 0; i < 450; ++i)
      for (int j = 0; j <= i; ++j) {
        EXPECT_TRUE(keeps(all, g, h, i, j)) << i << ' ' << j;
        EXPECT_EQ(keeps(none, g, h, i, j), j < kSink || j >= i / kSegment * kSegment) << i << ' ' << j;
      }
}

// A key as good as the best of the regions, for one block of rows, is kept for its whole segment; one that is further
// below than the gap is not.
TEST(AnchorAttention, OneBlockOfRowsKeepsAKeyForItsSegment) {
  constexpr int kN = 512, kKey = 150, kRow = 256 + 64;  // the third block of the third segment
  for (const double below : {0.0, 7.9, 8.3}) {
    MethodLab lab(1, 1, kN, 16, 5);
    std::fill(lab.q.begin(), lab.q.end(), 0.0f);
    for (int j = 0; j < kN; ++j) lab.k_at(0, j)[0] = j < kSink ? 40.0f : -60.0f;  // the anchor of rows that look here: 10
    lab.k_at(0, kKey)[0] = static_cast<float>(40 - 4 * below);
    for (int i = 0; i < kN; ++i) {
      const bool looks = i >= kRow && i < kRow + kBlock;
      lab.q_at(0, i)[0] = looks ? 1.0f : 0.0f;
      lab.q_at(0, i)[1] = looks ? 0.0f : 40.0f;  // the other rows look at their own segment alone
    }
    for (int j = 0; j < kN; ++j) lab.k_at(0, j)[1] = j >= 256 ? 40.0f : 0.0f;
    const Plan p = lab.plan(*with_gap(8), 0, kN).value();
    const Grid g{1, kN, kN, 0};
    for (int i = 256; i < 384; ++i) EXPECT_EQ(keeps(p, g, 0, i, kKey), below < 8) << i << ' ' << below;
    for (int i = 384; i < kN; ++i) EXPECT_FALSE(keeps(p, g, 0, i, kKey)) << i << ": another segment";
    EXPECT_FALSE(keeps(p, g, 0, kRow, kKey + 1));
  }
}

// Heavy keys that lie singly: of as many keys, single ones carry more of the attention than the best blocks.
TEST(AnchorAttention, SingleKeysCarryMoreThanBlocksOfAsMany) {
  constexpr int kN = 1024, kSize = 32;
  MethodLab lab(1, 1, kN, 16, 6);
  for (int i = 0; i < kN; ++i) lab.q_at(0, i)[0] = 8.0f;
  for (int j = 0; j < kN; ++j) lab.k_at(0, j)[0] = j % 40 == 7 || j < 8 ? 3.0f : 0.0f;
  const Plan p = lab.plan(*with_gap(3), 0, kN).value();
  const Grid g{1, kN, kN, 0};
  const int i = kN - 1, local = kN - kSegment;
  std::vector<double> weight(kN);
  double all = 0;
  for (int j = 0; j <= i; ++j) all += weight[static_cast<std::size_t>(j)] = std::exp(lab.logit(0, i, j));
  int count = 0;
  double kept = 0;
  for (int j = kSink; j < local; ++j)
    if (keeps(p, g, 0, i, j)) ++count, kept += weight[static_cast<std::size_t>(j)] / all;
  std::vector<double> blocks;
  for (int b = kSink; b + kSize <= local; b += kSize) {
    double sum = 0;
    for (int j = b; j < b + kSize; ++j) sum += weight[static_cast<std::size_t>(j)] / all;
    blocks.push_back(sum);
  }
  std::sort(blocks.rbegin(), blocks.rend());
  double best = 0;
  for (int b = 0; b < (count + kSize - 1) / kSize; ++b) best += blocks[static_cast<std::size_t>(b)];
  EXPECT_GT(count, 10);
  EXPECT_LT(count, (local - kSink) / 2);
  EXPECT_GT(kept, 2 * best) << count << " keys";
}

TEST(AnchorAttention, WhatIsWithinTheRegionsIsDense) {
  MethodLab lab(1, 1, 300, 16);
  EXPECT_TRUE(is_dense(lab.plan(*with_gap(0), 0, 128).value()));
  EXPECT_TRUE(is_dense(lab.plan(*with_gap(0, 300), 200, 300).value()));
  EXPECT_TRUE(is_dense(lab.plan(*with_gap(0), 299, 300).value()));
}

TEST(AnchorAttention, NamesWhatDoesNotFit) {
  const auto why = [](std::initializer_list<std::pair<const char*, double>> values) {
    return make(method_entry_anchorattention(), values)->check().error().what;
  };
  EXPECT_NE(why({{"block", 48}}).find("anchorattention.block: got 48"), std::string::npos);
  EXPECT_NE(why({{"segment", 100}}).find("anchorattention.segment: got 100"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
