// SPDX-License-Identifier: Apache-2.0
#include "block/budget/threshold.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "base/rng.h"
#include "block/budget/top_count.h"
#include "block/budget/top_mass.h"
#include "block/row_softmax.h"

namespace lacuna::block {
namespace {

using Scores = std::vector<float>;
using Indices = std::vector<std::int32_t>;

// The definition: a stable sort, then the walk.
template <class Rule>
Indices by_sorting(const Scores& s, Rule rule) {
  using Sum = typename Rule::Sum;
  Indices order(s.size()), kept;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return s[static_cast<std::size_t>(a)] > s[static_cast<std::size_t>(b)];
  });
  Sum total{}, taken = rule.taken;
  for (float x : s) total += rule.weight(x);
  rule.begin(total);
  for (std::int32_t i : order) {
    const Sum with = taken + rule.weight(s[static_cast<std::size_t>(i)]);
    if (!rule.more(taken, with)) break;
    kept.push_back(i);
    taken = with;
  }
  std::sort(kept.begin(), kept.end());
  return kept;
}

// One by one, and the same again by tiles.
template <class Rule>
void expect_equal(const Scores& s, const Rule& rule, const char* what) {
  const auto n = static_cast<std::int32_t>(s.size());
  Scores work(s.size() + 1, -7.0f), padded = s;
  padded.resize(static_cast<std::size_t>((n + kTileKeys - 1) / kTileKeys) * kTileKeys, NAN);  // never taken
  const Threshold end = threshold(s.data(), n, rule, work.data());
  EXPECT_EQ(work.back(), -7.0f) << what << " n=" << n;
  const Indices wanted = by_sorting(s, rule);
  Indices kept, in_tiles;
  Threshold one = end, tile = end;
  for (std::int32_t i = 0; i < n; ++i)
    if (one.take(s[static_cast<std::size_t>(i)])) kept.push_back(i);
  for (std::int32_t t = 0; t * kTileKeys < n; ++t)
    for (std::uint32_t bits = take_tile(padded.data() + t * kTileKeys, tile); bits; bits &= bits - 1)
      in_tiles.push_back(t * kTileKeys + std::countr_zero(bits));
  EXPECT_EQ(kept, wanted) << what << " n=" << n;
  EXPECT_EQ(in_tiles, wanted) << what << " n=" << n;
}

std::uint32_t top_of(const Scores& s) { return order_of(max_of(s.data(), static_cast<std::int64_t>(s.size()))); }

enum class Kind { ties, few, spread, equal, infinite, zeros };

float draw(Rng& rng, Kind kind, bool positive) {
  switch (kind) {
    case Kind::ties: return (static_cast<float>(rng.below(40)) - (positive ? 0.0f : 20.0f)) / 64.0f;
    case Kind::few: return static_cast<float>(rng.below(3)) / 4.0f;
    // Powers of two: far apart, and yet exact to add up.
    case Kind::spread: return std::ldexp(positive || rng.below(2) ? 1.0f : -1.0f, static_cast<int>(rng.below(40)) - 30);
    case Kind::equal: return 0.375f;
    case Kind::infinite: {
      const auto x = rng.below(4);
      return x == 0 ? INFINITY : x == 1 ? -INFINITY : static_cast<float>(rng.normal());
    }
    case Kind::zeros: return rng.below(2) ? 0.0f : -0.0f;
  }
  return 0;
}

constexpr Kind kKinds[] = {Kind::ties, Kind::few, Kind::spread, Kind::equal, Kind::infinite, Kind::zeros};

std::size_t draw_size(Rng& rng, int round) { return 1 + rng.below(round % 8 == 0 ? 3000 : round % 2 ? 3 : 90); }

TEST(Threshold, CountEqualsSorting) {
  Rng rng(21);
  for (int round = 0; round < 3000; ++round) {
    const Kind kind = kKinds[round % std::size(kKinds)];
    Scores s(draw_size(rng, round));
    for (float& x : s) x = draw(rng, kind, false);
    expect_equal(s, CountRule{.count = static_cast<std::int32_t>(1 + rng.below(s.size()))}, "count");
  }
}

TEST(Threshold, MassEqualsSorting) {
  Rng rng(22);
  for (int round = 0; round < 3000; ++round) {
    const Kind kind = kKinds[round % std::size(kKinds)];
    if (kind == Kind::infinite) continue;  // weights are finite
    Scores s(draw_size(rng, round));
    for (float& x : s) x = draw(rng, kind, true);
    const double mass = static_cast<double>(rng.below(65)) / 64;
    const double taken = static_cast<double>(rng.below(3));
    for (TopMass mode : {TopMass::reach, TopMass::within})
      expect_equal(s, MassRule{.top = top_of(s), .taken = taken, .mass = mass, .mode = mode}, "mass");
  }
}

// Scores of many digits, whose sums round: any score may be the last, and the share holds all the same.
TEST(Threshold, MassOfRealScoresIsReachedAndNoMore) {
  Rng rng(23);
  for (int round = 0; round < 300; ++round) {
    Scores s(draw_size(rng, round)), work(s.size());
    for (float& x : s) x = static_cast<float>(std::exp(4 * rng.normal()));
    const double mass = rng.uniform(), total = std::accumulate(s.begin(), s.end(), 0.0);
    const MassRule rule{.top = top_of(s), .mass = mass};
    Threshold end = threshold(s.data(), static_cast<std::int32_t>(s.size()), rule, work.data());
    double sum = 0;
    for (float x : s) sum += end.take(x) ? x : 0.0f;
    EXPECT_GE(sum, mass * total * (1 - 1e-12));
    EXPECT_LT(sum - end.value, mass * total * (1 + 1e-12));
  }
}

TEST(Threshold, NothingAndNoNumbers) {
  EXPECT_EQ(threshold(nullptr, 0, CountRule{.count = 3}, nullptr).equal, 0);
  Scores s(50, NAN), work(50);  // against the contract: any answer, but one
  for (int i = 0; i < 50; ++i) {
    (void)threshold(s.data(), 50, CountRule{.count = 7}, work.data());
    (void)threshold(s.data(), 50, MassRule{.top = order_of(1.0f), .mass = 0.5}, work.data());
    s[static_cast<std::size_t>(49 - i)] = static_cast<float>(i % 9);
  }
}

}  // namespace
}  // namespace lacuna::block
