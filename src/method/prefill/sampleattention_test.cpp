// SPDX-License-Identifier: Apache-2.0
// SampleAttention: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_sampleattention();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

// Of the attention of row i (a key number), the share that a plan keeps.
double kept_mass(MethodLab& lab, const Plan& p, const Grid& g, int h, std::int64_t i) {
  double all = 0, kept = 0;
  for (std::int64_t j = 0; j <= i; ++j) {
    const double weight = std::exp(lab.logit(h, i, j));
    all += weight;
    if (keeps(p, g, h, static_cast<std::int32_t>(i - g.first_key), j)) kept += weight;
  }
  return kept / all;
}

TEST(SampleAttention, AllMassIsDense) {
  MethodLab lab(2, 1, 400, 16, 2);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_sampleattention(), {{"mass", 1}, {"slash_mass", 1}, {"last_rows", 16}}), 0, 400).value()));
  // One direction alone keeps all of it too: every column of random keys has mass.
  auto p = lab.plan(*make(method_entry_sampleattention(), {{"mass", 1}, {"slash_mass", 0}, {"last_rows", 16}, {"segment", 128}}), 0, 400);
  ASSERT_TRUE(p.ok());
  const Grid g{2, 400, 400, 0};
  for (int i = 0; i < 400; i += 7)
    for (int j = 0; j <= i; ++j) EXPECT_TRUE(keeps(p.value(), g, 1, i, j)) << i << ' ' << j;
}

// The sheet's CRA: on the sampled rows either direction alone covers its mass, whatever the keys.
TEST(SampleAttention, SampledRowsKeepTheirMass) {
  for (const std::int64_t begin : {0, 33})
    for (const bool columns : {true, false})
      for (const int last_rows : {1, 16, 32}) {
        MethodLab lab(2, 1, begin + 500, 16, 5);
        for (float& x : lab.q) x *= 3;  // sharp
        auto p = lab.plan(*make(method_entry_sampleattention(), {{"mass", columns ? 0.8 : 0.0},
                                                                 {"slash_mass", columns ? 0.0 : 0.8},
                                                                 {"block", 16},
                                                                 {"last_rows", last_rows},
                                                                 {"segment", 128}}),
                          begin, begin + 500);
        ASSERT_TRUE(p.ok());
        ASSERT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
        const Grid g{2, 500, begin + 500, begin};
        const auto mean_of = [&](int h, std::int64_t end, int rows) {
          double mean = 0;
          for (std::int64_t i = end - rows; i < end; ++i) mean += kept_mass(lab, p.value(), g, h, begin + i) / rows;
          return mean;
        };
        double least = 1;  // of 32 rows
        for (int h = 0; h < 2; ++h)
          for (const std::int64_t end : {128, 256, 384, 500}) {
            EXPECT_GE(mean_of(h, end, last_rows), 0.8 - 1e-5) << begin << ' ' << columns << ' ' << last_rows << ' ' << h << ' ' << end;
            least = std::min(least, mean_of(h, end, 32));
          }
        if (last_rows == 1) {
          EXPECT_LT(least, 0.8) << "a sample of one row says nothing of the others";
        }
      }
}

TEST(SampleAttention, FindsAColumnAndADiagonal) {
  constexpr int kN = 1024, kColumn = 200, kDistance = 300;
  MethodLab lab(2, 2, kN, 32, 9);
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 32; ++c) {
      if (i > kColumn) lab.q_at(0, i)[c] = 3 * lab.k_at(0, kColumn)[c];
      if (i >= kDistance) lab.q_at(1, i)[c] = 3 * lab.k_at(1, i - kDistance)[c];
    }
  auto p = lab.plan(*make(method_entry_sampleattention(),
                          {{"mass", 0.5}, {"slash_mass", 0.5}, {"block", 32}, {"last_rows", 32}, {"segment", 256}}), 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g{2, kN, kN, 0};
  for (int i = kColumn + 1; i < kN; ++i) EXPECT_TRUE(keeps(p.value(), g, 0, i, kColumn)) << i;
  for (int i = kDistance; i < kN; ++i) EXPECT_TRUE(keeps(p.value(), g, 1, i, i - kDistance)) << i;
  double kept = 0;
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j <= i; ++j) kept += keeps(p.value(), g, 0, i, j);
  EXPECT_LT(kept / (kN * (kN + 1) / 2.0), 0.5);
}

// Of the newest keys, as many as it chose for the row, a window holds less of the row's attention.
TEST(SampleAttention, AWindowOfAsManyKeysHoldsLess) {
  constexpr int kN = 1024, kColumn = 200, kDistance = 300;
  MethodLab lab(2, 2, kN, 32, 17);
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 32; ++c) {
      if (i > kColumn) lab.q_at(0, i)[c] += 2 * lab.k_at(0, kColumn)[c];
      if (i >= kDistance) lab.q_at(1, i)[c] += 2 * lab.k_at(1, i - kDistance)[c];
    }
  auto p = lab.plan(*make(method_entry_sampleattention(),
                          {{"mass", 0.5}, {"slash_mass", 0.5}, {"block", 32}, {"last_rows", 32}, {"segment", 256}}), 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g{2, kN, kN, 0};
  for (int h = 0; h < 2; ++h) {
    double chosen = 0, window = 0;
    int rows = 0;
    for (int i = 512; i < kN; i += 7, ++rows) {  // the keys that matter are far away
      chosen += kept_mass(lab, p.value(), g, h, i);
      int count = 0;
      double all = 0, newest = 0;
      for (int j = 0; j <= i; ++j) count += keeps(p.value(), g, h, i, j);
      EXPECT_LT(count, i + 1) << "everything is kept";
      for (int j = 0; j <= i; ++j) {
        const double weight = std::exp(lab.logit(h, i, j));
        all += weight;
        if (j > i - count) newest += weight;
      }
      window += newest / all;
    }
    EXPECT_GT(chosen / rows, window / rows + 0.3) << h;
  }
}

// What only rows outside the samples look at is not seen: the method's known limit.
TEST(SampleAttention, DoesNotSeeWhatNoSampledRowLooksAt) {
  constexpr int kN = 1024, kKey = 40;
  MethodLab lab(1, 1, kN, 32, 3);
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 32; ++c) {
      const bool sampled = i % 256 >= 256 - 32;
      lab.q_at(0, i)[c] = 3 * lab.k_at(0, sampled ? i : kKey)[c];
    }
  auto p = lab.plan(*make(method_entry_sampleattention(),
                          {{"mass", 0.5}, {"slash_mass", 0.5}, {"block", 32}, {"last_rows", 32}, {"segment", 256}}), 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g{1, kN, kN, 0};
  EXPECT_FALSE(keeps(p.value(), g, 0, 600, kKey));
  EXPECT_TRUE(keeps(p.value(), g, 0, 600, 600));
}

TEST(SampleAttention, ShortCallsAreDense) {
  MethodLab lab(1, 1, 400, 16);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_sampleattention(), {{"last_rows", 64}}), 200, 400).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_sampleattention()), 399, 400).value()));
}

TEST(SampleAttention, NamesWhatDoesNotFit) {
  const auto why = [](std::initializer_list<std::pair<const char*, double>> values) {
    return make(method_entry_sampleattention(), values)->check().error().what;
  };
  EXPECT_NE(why({{"block", 48}}).find("sampleattention.block: got 48"), std::string::npos);
  EXPECT_NE(why({{"segment", 100}}).find("sampleattention.segment: got 100"), std::string::npos);
  EXPECT_NE(why({{"last_rows", 2000}}).find("sampleattention.last_rows: got 2000"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
