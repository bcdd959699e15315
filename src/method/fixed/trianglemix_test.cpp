// SPDX-License-Identifier: Apache-2.0
// The sheet's proofs. Needle retrieval against the plain A-shape and time to first token need a real
// model and are measured end to end; that kernel time follows the cost model is the bench's to show.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_trianglemix();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

std::unique_ptr<Method> triangle(double sink, double window, double last, double start = 0) {
  return make(method_entry_trianglemix(), {{"sink", sink}, {"window", window}, {"last_rows", last}, {"layer_start", start}});
}

TEST(TriangleMix, DenseWhenAnyPartCoversAll) {
  MethodLab lab(2, 1, 150, 8);
  EXPECT_TRUE(is_dense(lab.plan(*triangle(4, 150, 0), 0, 150).value())) << "window >= N";
  EXPECT_TRUE(is_dense(lab.plan(*triangle(4, 10, 150), 0, 150).value())) << "last_rows = N";
  const auto clipped = lab.plan(*triangle(4, 10, 9999), 0, 150);
  EXPECT_TRUE(is_dense(clipped.value())) << "last_rows > N is clipped";
  EXPECT_NE(clipped.value().why.find("last_rows = 9999 is more than the prompt's 150 tokens"), std::string::npos);
  for (int layer = 0; layer < lab.n_layers; ++layer)
    EXPECT_TRUE(is_dense(lab.plan(*triangle(4, 10, 5, lab.n_layers), 0, 150, layer).value())) << "layer_start = L";
  EXPECT_FALSE(is_dense(lab.plan(*triangle(4, 10, 5), 0, 150).value()));
  EXPECT_TRUE(is_dense(lab.plan(*triangle(4, 10, 5), 149, 150).value())) << "decode";
}

TEST(TriangleMix, LayersFromHalfOn) {
  MethodLab lab(1, 1, 150, 4);
  lab.n_layers = 5;
  for (int layer = 0; layer < 5; ++layer) {
    EXPECT_EQ(is_dense(lab.plan(*triangle(4, 10, 5, -1), 0, 150, layer).value()), layer < 2) << layer;
    EXPECT_EQ(is_dense(lab.plan(*triangle(4, 10, 5, 4), 0, 150, layer).value()), layer < 4) << layer;
  }
  lab.n_layers = 0;
  auto p = lab.plan(*triangle(4, 10, 5, -1), 0, 150, 3);
  EXPECT_TRUE(is_dense(p.value()));
  EXPECT_NE(p.value().why.find("layer_start"), std::string::npos) << p.value().why;
  EXPECT_FALSE(is_dense(lab.plan(*triangle(4, 10, 5, 2), 0, 150, 3).value())) << "an explicit layer needs no total";
}

TEST(TriangleMix, LayerStartBeyondTheModelIsNamed) {
  MethodLab lab(1, 1, 150, 4);
  auto p = lab.plan(*triangle(4, 10, 5, 7), 0, 150);
  ASSERT_FALSE(p.ok());
  EXPECT_NE(p.error().what.find("trianglemix.layer_start: got 7, need -1..4"), std::string::npos) << p.error().what;
}

// Also the sheet's "last rows equal dense rows, earlier rows equal the A-shape", and its cost model.
TEST(TriangleMix, MaskIsTheFormulaForOddSizes) {
  for (std::int64_t n : {31, 97, 130})
    for (std::int64_t sink : {0, 3, 20})
      for (std::int64_t window : {1, 9, 40})
        for (std::int64_t last : {0, 1, 17}) {
          MethodLab lab(1, 1, n, 4);
          auto p = lab.plan(*triangle(double(sink), double(window), double(last)), 0, n);
          const Grid g{1, static_cast<std::int32_t>(n), n, 0};
          std::int64_t pairs = 0, shape = 0, rest = 0;
          for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j <= i; ++j) {
              const bool a_shape = j < sink || i - j < window;
              ASSERT_EQ(keeps(p.value(), g, 0, static_cast<std::int32_t>(i), j), a_shape || i >= n - last)
                  << "n=" << n << " sink=" << sink << " window=" << window << " last=" << last << " i=" << i << " j=" << j;
              pairs += keeps(p.value(), g, 0, static_cast<std::int32_t>(i), j);
              shape += a_shape;
              rest += !a_shape && i >= n - last;
            }
          EXPECT_EQ(pairs, shape + rest);
          EXPECT_LE(rest, last * n);
        }
}

TEST(TriangleMix, ChunksOfAnAnnouncedPromptEqualOneShot) {
  constexpr std::int64_t kN = 143;
  MethodLab lab(1, 1, kN, 4);
  lab.prompt_tokens = kN;
  auto m = triangle(3, 11, 20);
  auto whole = lab.plan(*m, 0, kN);
  for (std::int64_t begin = 0, end; begin < kN; begin = end) {
    end = std::min<std::int64_t>(begin + 37, kN);
    auto part = lab.plan(*m, begin, end);
    const Grid g{1, static_cast<std::int32_t>(end - begin), end, begin};
    for (std::int64_t i = begin; i < end; ++i)
      for (std::int64_t j = 0; j <= i; ++j)
        ASSERT_EQ(keeps(part.value(), g, 0, static_cast<std::int32_t>(i - begin), j),
                  keeps(whole.value(), {1, kN, kN, 0}, 0, static_cast<std::int32_t>(i), j))
            << "i=" << i << " j=" << j;
  }
}

TEST(TriangleMix, UnknownPromptEndTakesTheChunks) {
  MethodLab lab(1, 1, 200, 4);
  auto m = triangle(3, 11, 20);
  const auto p = lab.plan(*m, 50, 150);
  EXPECT_EQ(std::get<Window>(p.value().pattern()).dense_from, 130);
  EXPECT_NE(p.value().why.find("the prompt's end is unknown"), std::string::npos) << p.value().why;
  lab.prompt_tokens = 200;
  EXPECT_EQ(lab.plan(*m, 50, 150).value().why, "");
  lab.prompt_tokens = 100;  // a second turn lies past the announced end
  EXPECT_EQ(std::get<Window>(lab.plan(*m, 120, 200).value().pattern()).dense_from, 180);
}

TEST(TriangleMix, LastRowsFindTheNeedleThatTheAShapeLoses) {
  constexpr std::int64_t kN = 500, kNeedle = 200;
  MethodLab lab(1, 1, kN, 16, 5);
  for (int c = 0; c < lab.d; ++c) {
    lab.k_at(0, kNeedle)[c] = lab.q_at(0, kN - 1)[c] * 3;
    lab.v_at(0, kNeedle)[c] = 100;
  }
  const Grid g{1, kN, kN, 0};
  const auto found = [&](double last) {
    auto p = lab.plan(*triangle(4, 64, last), 0, kN);
    return lab.attend(0, kN - 1, [&](std::int64_t j) { return keeps(p.value(), g, 0, kN - 1, j); })[0];
  };
  EXPECT_GT(found(16), 50);
  EXPECT_LT(found(0), 5);
}

// The sheet's "given the same K and V": dense rows have the bits of dense attention.
TEST(TriangleMix, LastRowsEqualDenseRowsAndTheOthersTheAShape) {
  constexpr std::int64_t kN = 97;
  MethodLab lab(2, 1, kN, 8, 6);
  const auto p = lab.plan(*triangle(3, 11, 17), 0, kN);
  const Grid g{2, kN, kN, 0};
  for (int h = 0; h < 2; ++h)
    for (std::int64_t i = 0; i < kN; ++i) {
      const auto got = lab.attend(h, i, [&](std::int64_t j) { return keeps(p.value(), g, h, static_cast<std::int32_t>(i), j); });
      const auto want = lab.attend(h, i, [&](std::int64_t j) { return i >= kN - 17 || j < 3 || i - j < 11; });
      EXPECT_EQ(got, want) << "head " << h << " row " << i;
    }
}

TEST(TriangleMix, Presets) {
  auto m = make(method_entry_trianglemix());
  MethodLab lab(1, 1, 4096, 4);
  auto w = std::get<Window>(lab.plan(*m, 0, 4096, 3).value().pattern());
  EXPECT_EQ(w.window, 256);
  EXPECT_EQ(w.dense_from, 4096 - 128);
  ASSERT_TRUE(m->preset("paper").ok());
  w = std::get<Window>(lab.plan(*m, 0, 4096, 3).value().pattern());
  EXPECT_EQ(w.sink, 8);
  EXPECT_EQ(w.window, 512);
  EXPECT_EQ(w.dense_from, 4096 - 128);
  EXPECT_FALSE(m->preset("best").ok());
}

}  // namespace
}  // namespace lacuna::method
