// SPDX-License-Identifier: Apache-2.0
// Recall of the top keys against planted ones: which keys have the largest scores is known, and which of them a window keeps.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/half.h"
#include "base/machine.h"
#include "base/rng.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

constexpr int kHeads = 4, kKvHeads = 2, kDim = 32, kKeys = 2048, kRows = 1024, kNeedles = 64;

// Keys of which those from `first` on, 64 in number, are what every row looks for. By the KV head: `first` and after it `first_other`.
struct Model {
  std::vector<float> q, k, v, out;
  std::vector<std::uint16_t> mask;
  Model(int first, int first_other) {
    Rng rng(7);
    for (auto* x : {&k, &v}) x->resize(std::size_t{kKvHeads} * kKeys * kDim);
    for (auto* x : {&q, &out}) x->resize(std::size_t{kHeads} * kRows * kDim);
    for (auto* x : {&q, &k, &v})
      for (float& e : *x) e = 0.1f * static_cast<float>(rng.normal());
    for (std::size_t row = 0; row < std::size_t{kHeads} * kRows; ++row) q[row * kDim] = 5.0f;
    for (int h = 0; h < kKvHeads; ++h)
      for (int i = 0; i < kNeedles; ++i) k[static_cast<std::size_t>(h * kKeys + (h ? first_other : first) + i) * kDim] = 5.0f;
  }
  // The same by an additive mask, and no key stands out.
  void by_mask(int first) {
    for (std::size_t row = 0; row < std::size_t{kHeads} * kRows; ++row) q[row * kDim] = 0.0f;
    mask.resize(std::size_t{kRows} * kKeys);
    for (int i = 0; i < kRows; ++i)
      for (int c = 0; c < kKeys; ++c)
        mask[static_cast<std::size_t>(i) * kKeys + c] =
            c > kKeys - kRows + i ? std::uint16_t{0xfc00} : float_to_half(c >= first && c < first + kNeedles ? 9.0f : 0.5f);
  }
  AttendCall call(int rows = kRows) {
    AttendCall c;
    c.q = contiguous(q.data(), Dtype::f32, 1, kHeads, kRows, kDim);
    c.out = contiguous(out.data(), Dtype::f32, 1, kHeads, kRows, kDim);
    c.q.n[2] = c.out.n[2] = rows;
    c.k = contiguous(k.data(), Dtype::f32, 1, kKvHeads, kKeys, kDim);
    c.v = contiguous(v.data(), Dtype::f32, 1, kKvHeads, kKeys, kDim);
    if (!mask.empty()) c.mask = {.data = mask.data(), .row_stride = kKeys};
    return c;
  }
};

Report run(const std::string& text, AttendCall c, int calls = 24) {
  auto options = parse_options(text + " threads=1");
  EXPECT_TRUE(options.ok());
  auto s = Session::open(options.value());
  EXPECT_TRUE(s.ok());
  for (c.layer = 0; c.layer < calls; ++c.layer) {
    const Status done = s.value()->attend(c);
    EXPECT_TRUE(done.ok()) << done.error().what;
  }
  return s.value()->report();
}

class Recall : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  }
  std::string window() const { return "streamingllm:sink=64:window=256 audit=sample machine=" + std::string(GetParam()); }
};

// Keys 0..63 are always kept, keys 300..363 by no row: each sees a thousand and more, and the last 256.
TEST_P(Recall, IsOneWhereTheNeedlesAreKept) {
  Model m(0, 0);
  const RecallStats r = run(window(), m.call()).prefill.recall;
  EXPECT_EQ(r.mean, 1.0);
  // One row in 64, of which one in 8, of 24 calls of 1024 rows.
  EXPECT_GT(r.rows, 24);
  EXPECT_LT(r.rows, 80);
  EXPECT_TRUE(0.85 < r.lower && r.lower < 1) << r.lower;  // by chance: none was seen to be missed
}

TEST_P(Recall, IsNoneWhereTheyAreLeftOut) {
  Model m(300, 300);
  EXPECT_EQ(run(window(), m.call()).prefill.recall.mean, 0.0);
}

TEST_P(Recall, CountsTheKeysThatAreKept) {
  Model m(48, 48);  // 16 of 64 are among the first 64 keys
  EXPECT_EQ(run(window(), m.call()).prefill.recall.mean, 0.25);
}

TEST_P(Recall, IsOfAHeadDrawnByChance) {
  Model m(0, 300);  // of two heads in four
  const RecallStats r = run(window(), m.call()).prefill.recall;
  EXPECT_NEAR(r.mean, 0.5, 0.25);
  EXPECT_LT(r.lower, r.mean);
}

TEST_P(Recall, GoesByScoresWithTheirMask) {
  for (const int first : {0, 300}) {
    Model m(0, 0);
    m.by_mask(first);
    EXPECT_EQ(run(window(), m.call()).prefill.recall.mean, first == 0 ? 1.0 : 0.0);
  }
}

TEST_P(Recall, OfDecodedTokens) {
  for (const int first : {0, 300}) {
    Model m(first, first);
    const Report r = run(window(), m.call(1), 64 * 12);
    EXPECT_EQ(r.decode.recall.mean, first == 0 ? 1.0 : 0.0);
    EXPECT_GT(r.decode.recall.rows, 4);  // each audited step of 12 or so
    EXPECT_EQ(r.prefill.recall.rows, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Machines, Recall, testing::Values("avx2", "avx512", "avx512bf16", "amx"),
                         [](const auto& p) { return std::string(p.param); });

TEST(RecallOfDense, IsKnownForCertain) {
  Model m(300, 300);
  const RecallStats r = run("dense audit=sample", m.call()).prefill.recall;
  EXPECT_EQ(r.mean, 1.0);
  EXPECT_EQ(r.lower, 1.0);
  EXPECT_GT(r.rows, 0);
}

TEST(RecallOfNothing, IsNotMeasured) {
  Model m(300, 300);
  EXPECT_EQ(run("streamingllm:sink=64:window=256 audit=off", m.call()).prefill.recall.rows, 0);
}

}  // namespace
}  // namespace lacuna
