// SPDX-License-Identifier: Apache-2.0
// Kernels of op top_weights against the reference, over weights whose sums, and shares of them, are exact in f32.
#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "engine/pick.h"
#include "op/top_weights_ref.h"

namespace lacuna::test {
namespace {

// Seeds in turn: many ties, few ties, a few large ones, nearly all zero, all alike.
std::vector<float> any_weights(Rng& rng, std::uint64_t seed, std::int32_t n) {
  std::vector<float> w;
  for (std::int32_t i = 0; i < n; ++i) {
    const auto x = static_cast<float>(rng.below(seed % 5 == 0 ? 8 : 400));
    w.push_back(seed % 5 == 2 ? (rng.below(20) ? 1.0f : x) : seed % 5 == 3 ? (rng.below(30) ? 0.0f : x) : seed % 5 == 4 ? 3.0f : x);
  }
  return w;
}

TEST(TopWeights, EqualTheReference) {
  for (const auto* k : kernel::top_weights_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    for (std::uint64_t seed = 1; seed <= 400; ++seed) {
      Rng rng(seed);
      const auto n = static_cast<std::int32_t>(rng.below(seed % 3 ? 100 : 600));
      const std::int32_t rows = 2, words = (n + 31) / 32 + 1;
      const std::vector<float> weight = any_weights(rng, seed, rows * n);
      std::vector<std::int32_t> count;
      for (int r = 0; r < rows; ++r) count.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(n) + 3)));
      op::TopWeights::Args a{.rows = rows, .n = n, .weight = weight.data(), .weight_row = n, .kept_row = words};
      a.forced = seed % 4 ? 0 : static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(n) + 9));
      if (seed % 2) a.count = count.data();
      if (seed % 2 == 0 || seed % 7 == 0) a.mass = static_cast<float>(rng.below(65)) / 64;
      std::vector<std::uint32_t> want(static_cast<std::size_t>(rows * words), 0xdeadbeefu), got = want;
      std::vector<std::int32_t> want_n(rows, -1), got_n(rows, -1);
      a.kept = want.data();
      a.taken = want_n.data();
      for (int r = 0; r < rows; ++r) op::top_weights_row_ref(a, r);
      a.kept = got.data();
      a.taken = got_n.data();
      const auto pool = make_thread_pool(1);
      Workspace space;
      run_kernel(*k, a, *pool, space);
      const std::string line = fmt::format("{} seed={} n={} forced={} mass={} count={}", k->name, seed, n, a.forced, a.mass, a.count ? count[0] : -1);
      ASSERT_EQ(got_n, want_n) << line;
      ASSERT_EQ(got, want) << line;
    }
  }
}

TEST(TopWeights, SumsOfAnySizeEndWhereTheyShould) {
  for (const auto* k : kernel::top_weights_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
      Rng rng(seed);
      std::vector<float> weight(2000);
      for (float& w : weight) w = std::exp(8 * static_cast<float>(rng.normal()));
      const float mass = seed % 2 ? 0.9f : 0.999f;
      std::int32_t taken = -1;
      const auto pool = make_thread_pool(1);
      Workspace space;
      run_kernel(*k, {.rows = 1, .n = 2000, .weight = weight.data(), .weight_row = 2000, .mass = mass, .taken = &taken}, *pool, space);
      std::sort(weight.begin(), weight.end(), std::greater<>());
      double all = 0, sum = 0;
      for (const float w : weight) all += w;
      for (std::int32_t i = 0; i < taken; ++i) sum += weight[static_cast<std::size_t>(i)];
      EXPECT_LE(sum, (mass + 1e-6) * all) << k->name << " seed " << seed;
      EXPECT_GT(sum + weight[static_cast<std::size_t>(taken)], (mass - 1e-6) * all) << k->name << " seed " << seed;
    }
  }
}

}  // namespace
}  // namespace lacuna::test
