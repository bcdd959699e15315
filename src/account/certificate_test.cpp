// SPDX-License-Identifier: Apache-2.0
#include "account/certificate.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace lacuna {
namespace {

TEST(Certificate, BoundsTheShareOfWhatIsLeftOut) {
  EXPECT_EQ(lost_at_most({}), 0.0);
  const std::vector<LeftOut> quarter = {{0.25, 0}, {0.75, 1}};  // as much as is kept
  EXPECT_GE(lost_at_most(quarter), 0.5);
  EXPECT_NEAR(lost_at_most(quarter), 0.5, 1e-6);
  EXPECT_EQ(lost_at_most(std::vector<LeftOut>{{INFINITY, 0}}), 1.0);
  EXPECT_EQ(lost_at_most(std::vector<LeftOut>{{NAN, 0}}), 1.0) << "what is not known bounds nothing";
}

// The fewest of the largest parts: with one less the rest would be too much.
TEST(Certificate, KeepsNoMorePagesThanItMust) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    std::vector<LeftOut> parts;
    for (std::uint64_t i = 0, n = rng.below(40); i < n; ++i)
      parts.push_back({std::exp(3 * rng.normal() - 4), static_cast<std::int32_t>(i)});
    const double limit = 0.001 + 0.9 * rng.uniform();
    const std::size_t keep = largest_to_keep(parts, limit);
    EXPECT_LE(lost_at_most(std::span(parts).subspan(keep)), limit);
    if (keep > 0) {
      EXPECT_GT(lost_at_most(std::span(parts).subspan(keep - 1)), limit);
    }
    for (std::size_t i = 1; i < parts.size(); ++i) EXPECT_GE(parts[i - 1].most, parts[i].most);
  }
}

TEST(Certificate, KeepsAllWhereAPartHasNoBound) {
  for (const double unknown : {static_cast<double>(INFINITY), static_cast<double>(NAN)}) {
    std::vector<LeftOut> parts = {{1e-9, 0}, {unknown, 1}, {1e-9, 2}};
    EXPECT_EQ(largest_to_keep(parts, 0.5), 3u);
  }
}

TEST(Certificate, WithALimitOfAllKeepsNothing) {
  std::vector<LeftOut> parts = {{INFINITY, 0}, {NAN, 1}, {2.0, 2}};
  EXPECT_EQ(largest_to_keep(parts, 1.0), 0u);
}

TEST(Certificate, CountsBounds) {
  CertificateCount count(0.05);
  EXPECT_EQ(count.report().within, 1.0);
  for (const double bound : {0.0, 0.04, 0.05, 0.11}) count.add(bound);
  count.pairs(200, 0);
  count.pairs(0, 50);
  const CertificateReport r = count.report();
  EXPECT_EQ(r.limit, 0.05);
  EXPECT_EQ(r.rows, 4);
  EXPECT_DOUBLE_EQ(r.mean, 0.05);
  EXPECT_EQ(r.max, 0.11);
  EXPECT_EQ(r.within, 0.75);
  EXPECT_EQ(r.kept_for_it, 0.25);
}

}  // namespace
}  // namespace lacuna
