// SPDX-License-Identifier: Apache-2.0
// MInference: the proofs of its sheet.
#include <gtest/gtest.h>

#include <set>

#include "block/estimate/last_rows.h"
#include "block/stripes.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_minference();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

Grid grid_of(std::int64_t begin, std::int64_t end, std::int32_t heads = 1) {
  return {heads, static_cast<std::int32_t>(end - begin), end, begin};
}

TEST(MInference, AllDistancesAreDense) {
  MethodLab lab(2, 1, 400, 8);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_minference(), {{"slash", 400}}), 0, 400).value()));
  EXPECT_FALSE(is_dense(lab.plan(*make(method_entry_minference(), {{"slash", 120}, {"vertical", 40}}), 0, 400).value()));
}

// Every requested line is covered, nothing lies after a block's last row, ranges do not touch.
TEST(MInference, StripesCoverTheirLinesAndNoFutureKey) {
  Rng rng(4);
  for (int round = 0; round < 200; ++round) {
    const auto begin = static_cast<std::int64_t>(rng.below(300)), rows = static_cast<std::int64_t>(1 + rng.below(200));
    const Grid g = grid_of(begin, begin + rows);
    std::set<std::int32_t> columns, distances;
    for (int i = 0; i < 8; ++i) {
      columns.insert(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(g.n_keys))));
      distances.insert(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(g.n_keys))));
    }
    const std::vector<std::int32_t> c(columns.begin(), columns.end()), d(distances.begin(), distances.end());
    std::vector<std::vector<Range>> lists((static_cast<std::size_t>(g.n_rows) + 63) / 64);
    for (std::size_t u = 0; u < lists.size(); ++u) block::append_stripes(g, 64, static_cast<std::int32_t>(u), c, d, lists[u]);
    const Ranges r = join_ranges(g, 64, 1, lists);
    ASSERT_TRUE(r.check().ok()) << r.check().error().what;
    for (std::int32_t i = 0; i < g.n_rows; ++i) {
      const std::int64_t own = g.first_key + i;
      for (const std::int32_t j : c)
        if (j <= own) { ASSERT_TRUE(r.keeps(g, 0, i, j)) << "column " << j << " row " << i; }
      for (const std::int32_t s : d)
        if (s <= own) { ASSERT_TRUE(r.keeps(g, 0, i, own - s)) << "distance " << s << " row " << i; }
    }
    for (std::size_t u = 0; u < lists.size(); ++u)
      for (const Range& x : lists[u]) ASSERT_LE(x.end, std::min<std::int64_t>(begin + static_cast<std::int64_t>(u + 1) * 64, begin + rows));
  }
}

TEST(MInference, LineSumsAreThoseOfExactAttention) {
  for (const std::int64_t begin : {0, 37}) {
    MethodLab lab(4, 2, 150, 16, 3);
    const AttentionView x = lab.view(begin, 150);
    const block::LineSums sums = block::last_rows(x, 20, lab.context);
    for (int h = 0; h < 4; ++h) {
      std::vector<double> vertical(150, 0.0), slash(150, 0.0);
      for (std::int64_t i = 130; i < 150; ++i) {
        double l = 0;
        for (std::int64_t j = 0; j <= i; ++j) l += std::exp(lab.logit(h, i, j));
        for (std::int64_t j = 0; j <= i; ++j) {
          vertical[static_cast<std::size_t>(j)] += std::exp(lab.logit(h, i, j)) / l;
          slash[static_cast<std::size_t>(i - j)] += std::exp(lab.logit(h, i, j)) / l;
        }
      }
      for (int j = 0; j < 150; ++j) {
        ASSERT_NEAR(sums.vertical[h * 150 + j], vertical[static_cast<std::size_t>(j)], 1e-4) << h << " " << j;
        ASSERT_NEAR(sums.slash[h * 150 + j], slash[static_cast<std::size_t>(j)], 1e-4) << h << " " << j;
      }
    }
  }
}

// A column that all rows like and a diagonal that all rows like are found among random others.
TEST(MInference, FindsAPlantedColumnAndDiagonal) {
  constexpr int kN = 1200, kD = 32, kColumn = 333, kDistance = 517;
  MethodLab lab(1, 1, kN, kD, 8);
  for (float& f : lab.q) f *= 0.1f;
  for (int i = 0; i < kN; ++i) {
    lab.q_at(0, i)[0] = 6.0f;                                   // all rows look for channel 0
    lab.k_at(0, i)[0] = i == kColumn ? 6.0f : 0.0f;
    for (int c = 1; c < kD && i >= kDistance; ++c) lab.q_at(0, i)[c] = lab.k_at(0, i - kDistance)[c];
  }
  auto m = make(method_entry_minference(), {{"vertical", 31}, {"slash", 101}});
  auto p = lab.plan(*m, 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g = grid_of(0, kN);
  for (int i = 700; i < kN; ++i) {
    EXPECT_TRUE(keeps(p.value(), g, 0, i, kColumn)) << i;
    EXPECT_TRUE(keeps(p.value(), g, 0, i, i - kDistance)) << i;
  }
  EXPECT_FALSE(keeps(p.value(), g, 0, 1100, 800));
}

TEST(MInference, ForcedLinesAreAlwaysThere) {
  MethodLab lab(2, 2, 900, 8, 5);
  auto p = lab.plan(*make(method_entry_minference(), {{"vertical", 30}, {"slash", 100}}), 300, 900);
  ASSERT_TRUE(p.ok());
  const Grid g = grid_of(300, 900, 2);
  for (int h = 0; h < 2; ++h)
    for (int i : {0, 63, 64, 599}) {
      for (int j = 0; j < 30; ++j) EXPECT_TRUE(keeps(p.value(), g, h, i, j));
      for (int d = 0; d < 100; ++d) EXPECT_TRUE(keeps(p.value(), g, h, i, 300 + i - d));
    }
}

TEST(MInference, SmallChunksAreDense) {
  MethodLab lab(1, 1, 1000, 8);
  auto m = make(method_entry_minference(), {{"vertical", 30}, {"slash", 100}});
  EXPECT_TRUE(is_dense(lab.plan(*m, 800, 1000).value()));
  EXPECT_FALSE(is_dense(lab.plan(*m, 744, 1000).value()));
}

}  // namespace
}  // namespace lacuna::method
