// SPDX-License-Identifier: Apache-2.0
// Kernels of op keep_mass: what they keep carries the mass, and nothing less does.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "engine/pick.h"
#include "pattern/tile_runs.h"
#include "support/each_kernel.h"

namespace lacuna::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Row {
  std::vector<float> score;
  float scale = 0.125f, mass = 0.9f;
  std::vector<std::uint32_t> kept;
  bool keeps(std::size_t c) const { return kept[c / 32] >> (c % 32) & 1u; }
};

// Seeds in turn: sharp, flat, all alike, with ties, with few candidates.
Row any_row(std::uint64_t seed) {
  Rng rng(seed);
  Row x;
  x.score.resize(32 * (1 + rng.below(60)));
  const float spread[] = {30.0f, 0.5f, 0.0f, 20.0f, 8.0f};
  for (float& s : x.score) {
    s = static_cast<float>(rng.normal()) * spread[seed % 5];
    if (seed % 5 == 3) s = std::round(s / 8) * 8;
    if (seed % 5 == 4 && rng.below(10)) s = -kInfinity;
  }
  if (seed % 7 == 0) x.score[rng.below(x.score.size())] = 300.0f;
  constexpr float kMass[] = {0.5f, 0.9f, 0.99f, 0.999f, 0.1f};
  x.mass = kMass[seed / 5 % 5];
  return x;
}

void run(const kernel::Kernel<op::KeepMass>& k, Row& x) {
  x.kept.assign(x.score.size() / 32 + 1, 0xdeadbeefu);
  const auto n = static_cast<std::int64_t>(x.score.size());
  const op::KeepMass::Args a{.rows = 1, .n = n, .score = x.score.data(), .score_row = n, .scale = x.scale, .mass = x.mass,
                             .kept = x.kept.data(), .kept_row = n / 32};
  const auto pool = make_thread_pool(1);
  Workspace space;
  run_kernel(k, a, *pool, space);
  ASSERT_EQ(x.kept.back(), 0xdeadbeefu) << "nothing past the end is written";
}

TEST(KeepMass, KeepsTheFewestThatCarryTheMass) {
  each_kernel(kernel::keep_mass_list, [](const kernel::Kernel<op::KeepMass>& k) {
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
      Row x = any_row(seed);
      ASSERT_NO_FATAL_FAILURE(run(k, x));
      const std::string line = fmt::format("{} seed={} n={} mass={}", k.name, seed, x.score.size(), x.mass);
      const float top = *std::max_element(x.score.begin(), x.score.end());
      double sum = 0, kept = 0;
      float least = kInfinity, best_left = -kInfinity;
      for (std::size_t c = 0; c < x.score.size(); ++c) {
        const double w = std::exp((double{x.score[c]} - top) * x.scale);
        sum += w;
        if (x.keeps(c)) {
          kept += w;
          least = std::min(least, x.score[c]);
        } else {
          best_left = std::max(best_left, x.score[c]);
        }
      }
      if (top == -kInfinity) {
        EXPECT_EQ(least, kInfinity) << line;
        continue;
      }
      EXPECT_GE(kept, (x.mass - 3e-6) * sum) << line;
      EXPECT_GE(least, best_left) << "no key above one that is kept is left out: " << line;
      // Without the least of them, all its equals gone, the mass is not carried.
      double without = 0;
      for (const float s : x.score)
        if (s > least + 1e-3f) without += std::exp((double{s} - top) * x.scale);
      EXPECT_LT(without, (x.mass + 3e-6) * sum) << line;
    }
  });
}

TEST(KeepMass, EqualWeightsStayTogether) {
  each_kernel(kernel::keep_mass_list, [](const kernel::Kernel<op::KeepMass>& k) {
    Row x;
    x.score.assign(64, 1.0f);
    x.score[5] = 2.0f;
    x.score[7] = -kInfinity;
    ASSERT_NO_FATAL_FAILURE(run(k, x));
    for (std::size_t c = 0; c < 64; ++c) EXPECT_EQ(x.keeps(c), c != 7) << k.name << " " << c;
  });
}

TEST(KeepMass, WhatCannotBeJudgedKeepsAllCandidates) {
  each_kernel(kernel::keep_mass_list, [](const kernel::Kernel<op::KeepMass>& k) {
    Row x;
    x.score.assign(96, -50.0f);
    x.score[3] = kInfinity;
    x.score[90] = -kInfinity;
    ASSERT_NO_FATAL_FAILURE(run(k, x));
    for (std::size_t c = 0; c < 96; ++c) EXPECT_EQ(x.keeps(c), c != 90) << k.name << " " << c;
    x.score.assign(96, -kInfinity);
    ASSERT_NO_FATAL_FAILURE(run(k, x));
    for (std::size_t c = 0; c < 96; ++c) EXPECT_FALSE(x.keeps(c)) << k.name;
  });
}

}  // namespace
}  // namespace lacuna::test
