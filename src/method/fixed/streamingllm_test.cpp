// SPDX-License-Identifier: Apache-2.0
// The sheet's proofs of use A. Those of use B (the ring cache) wait for the cache role; perplexity
// over a long text is measured end to end.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_streamingllm();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

TEST(StreamingLlm, WindowOfEverythingIsDense) {
  MethodLab lab(2, 1, 101, 8);
  for (double window : {97.0, 101.0, 5000.0}) {
    auto p = lab.plan(*make(method_entry_streamingllm(), {{"sink", 4}, {"window", window}}), 0, 101);
    ASSERT_TRUE(p.ok());
    EXPECT_TRUE(is_dense(p.value())) << window;
    EXPECT_NE(p.value().why, "");
  }
  auto p = lab.plan(*make(method_entry_streamingllm(), {{"sink", 4}, {"window", 96}}), 0, 101);
  EXPECT_FALSE(is_dense(p.value())) << "row 100 does not see key 4";
}

TEST(StreamingLlm, MaskIsTheFormulaForOddSizesAndChunks) {
  for (std::int64_t n : {1, 7, 33, 131})
    for (std::int64_t begin : {std::int64_t{0}, n / 3, n - 1})
      for (std::int64_t sink : {0, 1, 5})
        for (std::int64_t window : {1, 3, 40}) {
          MethodLab lab(1, 1, n, 4);
          auto p = lab.plan(*make(method_entry_streamingllm(),
                                  {{"sink", double(sink)}, {"window", double(window)}}), begin, n);
          ASSERT_TRUE(p.ok());
          const Grid g{1, static_cast<std::int32_t>(n - begin), n, begin};
          for (std::int64_t i = begin; i < n; ++i)
            for (std::int64_t j = 0; j <= i; ++j)
              ASSERT_EQ(keeps(p.value(), g, 0, static_cast<std::int32_t>(i - begin), j), i - j < window || j < sink)
                  << "n=" << n << " begin=" << begin << " sink=" << sink << " window=" << window << " i=" << i << " j=" << j;
        }
}

// A head that puts its surplus on token 0: what a window alone loses, four sinks keep.
TEST(StreamingLlm, SinksBeatAWindowOfTheSameCost) {
  MethodLab lab(1, 1, 400, 16, 3);
  for (std::int64_t i = 0; i < lab.n; ++i) lab.q_at(0, i)[0] = 4.0f;
  for (std::int64_t j = 0; j < lab.n; ++j) lab.k_at(0, j)[0] = j == 0 ? 10.0f : -1.0f;
  const auto error = [&](double sink, double window) {
    auto p = lab.plan(*make(method_entry_streamingllm(), {{"sink", sink}, {"window", window}}), 0, lab.n);
    const Grid g{1, static_cast<std::int32_t>(lab.n), lab.n, 0};
    double sum = 0;
    for (std::int64_t i = 200; i < lab.n; i += 10) {
      const auto exact = lab.attend(0, i, [](std::int64_t) { return true; });
      const auto got = lab.attend(0, i, [&](std::int64_t j) { return keeps(p.value(), g, 0, static_cast<std::int32_t>(i), j); });
      for (int c = 0; c < lab.d; ++c) sum += std::pow(exact[c] - got[c], 2);
    }
    return std::sqrt(sum);
  };
  EXPECT_GT(error(0, 64), 5 * error(4, 60));
}

// The limit other methods must beat: text outside sinks and window is out of reach.
TEST(StreamingLlm, NeedleOutsideIsNotFound) {
  MethodLab lab(1, 1, 600, 16, 5);
  constexpr std::int64_t kNeedle = 200;
  for (int c = 0; c < lab.d; ++c) {
    lab.k_at(0, kNeedle)[c] = lab.q_at(0, 599)[c] * 3;
    lab.v_at(0, kNeedle)[c] = 100;
  }
  auto p = lab.plan(*make(method_entry_streamingllm(), {{"sink", 4}, {"window", 100}}), 0, 600);
  const Grid g{1, 600, 600, 0};
  EXPECT_FALSE(keeps(p.value(), g, 0, 599, kNeedle));
  EXPECT_GT(lab.attend(0, 599, [](std::int64_t) { return true; })[0], 50);
  EXPECT_LT(lab.attend(0, 599, [&](std::int64_t j) { return keeps(p.value(), g, 0, 599, j); })[0], 5);
}

TEST(StreamingLlm, AutoScalesWithTheAnnouncedPromptAndChunksAgree) {
  MethodLab lab(1, 1, 2000, 4);
  lab.prompt_tokens = 2000;
  auto m = make(method_entry_streamingllm());
  for (std::int64_t begin : {0, 800, 1500}) {
    auto p = lab.plan(*m, begin, begin + 500);
    if (begin == 0) {
      EXPECT_TRUE(is_dense(p.value())) << "4 + 500 keys cover the first chunk";
      continue;
    }
    ASSERT_TRUE(std::holds_alternative<Window>(p.value().pattern()));
    EXPECT_EQ(std::get<Window>(p.value().pattern()).window, 500);
  }
  lab.prompt_tokens = -1;  // unknown: the chunk's end stands for it
  const auto guessed = lab.plan(*m, 800, 1200);
  EXPECT_EQ(std::get<Window>(guessed.value().pattern()).window, 300);
  EXPECT_NE(guessed.value().why.find("the prompt's end is unknown"), std::string::npos) << guessed.value().why;
  EXPECT_EQ(lab.plan(*make(method_entry_streamingllm(), {{"window", 50}}), 800, 1200).value().why, "");
}

TEST(StreamingLlm, PresetsSetThePublishedConstants) {
  auto m = make(method_entry_streamingllm());
  ASSERT_TRUE(m->preset("paper").ok());
  MethodLab lab(1, 1, 3000, 4);
  const auto w = std::get<Window>(lab.plan(*m, 0, 3000).value().pattern());
  EXPECT_EQ(w.sink, 4);
  EXPECT_EQ(w.window, 1020);
  ASSERT_TRUE(m->preset("auto").ok());
  EXPECT_EQ(std::get<Window>(lab.plan(*m, 0, 3000).value().pattern()).window, 750);
  EXPECT_NE(m->preset("fast").error().what.find("need auto or paper"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
