// SPDX-License-Identifier: Apache-2.0
// The sheet's proofs. What a model gains that was trained with the mask, and kernel times at 32,000 tokens and more, need
// more than a test.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_powerattention();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

std::unique_ptr<Method> power(double block, double window, double sink, double full_layers = 0) {
  return make(method_entry_powerattention(),
              {{"block", block}, {"window", window}, {"sink", sink}, {"full_layers", full_layers}});
}

// The mask, written a second time.
bool allowed(std::int64_t i, std::int64_t j, std::int64_t block, std::int64_t window, std::int64_t sink) {
  const std::int64_t u = i / block, c = j / block;
  return c < (sink + block - 1) / block || u - c < (window + block - 1) / block ||
         std::has_single_bit(static_cast<std::uint64_t>(u - c));
}

TEST(PowerAttention, MaskIsTheFormulaForOddSizesAndChunks) {
  for (const std::int64_t block : {1, 7, 16})
    for (const std::int64_t window : {1, 20, 48})
      for (const std::int64_t sink : {0, 5})
        for (const std::int64_t begin : {0, 16, 61, 210}) {
          constexpr std::int64_t kN = 211;
          MethodLab lab(1, 1, kN, 4);
          const auto p = lab.plan(*power(double(block), double(window), double(sink)), begin, kN);
          ASSERT_FALSE(is_dense(p.value()));
          const Grid g{1, static_cast<std::int32_t>(kN - begin), kN, begin};
          for (std::int64_t i = begin; i < kN; ++i)
            for (std::int64_t j = 0; j <= i; ++j)
              ASSERT_EQ(keeps(p.value(), g, 0, static_cast<std::int32_t>(i - begin), j), allowed(i, j, block, window, sink))
                  << "block=" << block << " window=" << window << " sink=" << sink << " i=" << i << " j=" << j;
        }
}

TEST(PowerAttention, DenseWhenTheWindowCoversAllAndInFullLayers) {
  MethodLab lab(2, 1, 150, 4);
  EXPECT_TRUE(is_dense(lab.plan(*power(16, 160, 0), 0, 150).value()));
  EXPECT_TRUE(is_dense(lab.plan(*power(16, 144, 16), 0, 150).value()));
  EXPECT_FALSE(is_dense(lab.plan(*power(16, 32, 16), 0, 150).value()));
  EXPECT_TRUE(is_dense(lab.plan(*power(256, 1, 0), 0, 150).value())) << "a prompt shorter than a block";
  for (int layer = 0; layer < 15; ++layer)
    EXPECT_EQ(is_dense(lab.plan(*power(16, 32, 16, 2), 0, 150, layer).value()), layer % 7 < 2) << layer;
}

// Which blocks the last one has heard from after each layer; `hears(u, c)`: one layer.
template <class Hears>
int layers_until_all(int blocks, int most, const Hears& hears) {
  std::vector<bool> heard(static_cast<std::size_t>(blocks), false);
  heard.back() = true;
  for (int layer = 1; layer <= most; ++layer) {
    auto next = heard;
    for (int u = 0; u < blocks; ++u)
      for (int c = 0; heard[static_cast<std::size_t>(u)] && c <= u; ++c)
        if (hears(u, c)) next[static_cast<std::size_t>(c)] = true;
    heard = next;
    if (std::find(heard.begin(), heard.end(), false) == heard.end()) return layer;
  }
  return -1;
}

TEST(PowerAttention, EveryBlockIsHeardAfterAsManyLayersAsADistanceHasBits) {
  constexpr int kBlock = 8;
  for (const int blocks : {13, 32, 47}) {
    const std::int64_t n = blocks * kBlock;
    MethodLab lab(1, 1, n, 4);
    const auto p = lab.plan(*power(kBlock, kBlock, 0), 0, n);
    const Grid g{1, static_cast<std::int32_t>(n), n, 0};
    const int most = std::bit_width(static_cast<unsigned>(blocks - 1));  // floor(log2) + 1
    const auto kept = [&](int u, int c) { return keeps(p.value(), g, 0, u * kBlock + kBlock - 1, c * kBlock); };
    const int took = layers_until_all(blocks, most, kept);
    EXPECT_GT(took, 0) << blocks << " blocks are not heard from in " << most << " layers";
    // As many blocks a row as `kept` has at the end, in a window: far too near.
    int row = 0;
    for (int c = 0; c < blocks; ++c) row += kept(blocks - 1, c);
    EXPECT_EQ(layers_until_all(blocks, 1, [&](int u, int c) { return u - c < row; }), -1);
    EXPECT_EQ(layers_until_all(blocks, most * 4, [&](int u, int c) { return (u - c) % 2 == 0; }), -1) << "dilated: holes";
  }
}

TEST(PowerAttention, ADecodedTokenHasItsRowOfThePrompt) {
  constexpr std::int64_t kN = 300;
  MethodLab lab(1, 1, kN, 4);
  const auto m = power(16, 48, 16);
  const auto whole = lab.plan(*m, 0, kN);
  for (const std::int64_t i : {100, 255, 256, 299}) {
    const auto one = lab.plan(*m, i, i + 1);
    for (std::int64_t j = 0; j <= i; ++j)
      ASSERT_EQ(keeps(one.value(), {1, 1, i + 1, i}, 0, 0, j),
                keeps(whole.value(), {1, kN, kN, 0}, 0, static_cast<std::int32_t>(i), j))
          << i << " " << j;
  }
}

TEST(PowerAttention, PaperKeepsTenBlocksAt32k) {
  auto m = make(method_entry_powerattention());
  ASSERT_TRUE(m->preset("paper").ok());
  MethodLab lab(1, 1, 32768, 1);
  const auto p = lab.plan(*m, 32767, 32768);
  std::int64_t keys = 0;
  for (std::int64_t j = 0; j < 32768; ++j) keys += keeps(p.value(), {1, 1, 32768, 32767}, 0, 0, j);
  EXPECT_EQ(keys, 10 * 256) << "a sink, distances 64 32 16 8, a window of 5";
}

}  // namespace
}  // namespace lacuna::method
