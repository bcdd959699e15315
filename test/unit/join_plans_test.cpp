// SPDX-License-Identifier: Apache-2.0
#include "method/join_plans.h"

#include <gtest/gtest.h>

#include "engine/lower.h"
#include "support/method_lab.h"

namespace lacuna {
namespace {

const Grid kGrid{4, 256, 256, 0};

Plan window(std::int64_t sink, std::int64_t width) { return plan_of(Window{.sink = sink, .window = width}); }

// One block of keys per row block: the first, or the own one.
Plan blocks(std::int32_t size, std::int32_t lists) {
  BlockMap m{.heads = lists, .block_q = size, .block_k = size, .n_rows = kGrid.n_rows, .n_keys = kGrid.n_keys, .row_ptr = {}, .cols = {}};
  for (std::int32_t l = 0; l < lists; ++l) {
    m.row_ptr.push_back(static_cast<std::int32_t>(m.cols.size()));
    for (std::int32_t u = 0; u < m.q_blocks(); ++u) {
      m.cols.push_back(l % 2 ? 0 : u);
      m.row_ptr.push_back(static_cast<std::int32_t>(m.cols.size()));
    }
  }
  return plan_of(std::move(m));
}

void expect_kept(const Plan& joined, std::int32_t head, const Plan& wanted) {
  for (std::int32_t i = 0; i < kGrid.n_rows; i += 7)
    for (std::int64_t j = 0; j <= i; ++j)
      ASSERT_EQ(test::keeps(joined, kGrid, head, i, j), test::keeps(wanted, kGrid, head, i, j)) << "head " << head << " row " << i << " key " << j;
}

TEST(JoinPlans, EachHeadKeepsWhatItsOwnPlanKeeps) {
  Plan routed = window(0, 9);  // of several patterns, by routes of its own
  routed.patterns.emplace_back(Window{.sink = 5, .window = 3});
  routed.routes = {0, 1, kRouteOff, 1};
  const std::vector<Plan> plans = {window(2, 30), blocks(64, 4), routed, dense_plan("")};
  for (const std::vector<int>& of : {std::vector<int>{0, 1, 2, 1}, {2, 2, 2, 2}, {1, 0, 3, -1}, {0, 0, 0, 0}}) {
    const Plan joined = join_plans(plans, of);
    ASSERT_TRUE(check_plan(joined, kGrid, 2, 256).ok());
    for (std::int32_t h = 0; h < 4; ++h) {
      const int n = of[static_cast<std::size_t>(h)];
      expect_kept(joined, h, n < 0 ? dense_plan("") : plans[static_cast<std::size_t>(n)]);
    }
  }
}

TEST(JoinPlans, NothingTakenIsDense) {
  const std::vector<Plan> plans = {window(2, 30)};
  EXPECT_TRUE(is_dense(join_plans(plans, std::vector<int>{-1, -1, -1, -1})));
  EXPECT_TRUE(is_dense(join_plans({}, std::vector<int>{-1, -1, -1, -1})));
}

TEST(JoinPlans, WhatDoesNotGoTogetherIsGivenUp) {
  const std::vector<Plan> plans = {blocks(64, 1), blocks(128, 1)};
  const Plan joined = join_plans(plans, std::vector<int>{0, 1, 1, 0});
  ASSERT_TRUE(check_plan(joined, kGrid, 2, 256).ok());
  expect_kept(joined, 0, plans[0]);
  EXPECT_EQ(joined.route(1), kRouteFull);
  std::vector<Plan> many(70, window(1, 5));
  std::vector<int> of(70);
  for (int i = 0; i < 70; ++i) of[static_cast<std::size_t>(i)] = i;
  const Grid wide{70, 256, 256, 0};
  EXPECT_TRUE(check_plan(join_plans(many, of), wide, 1, 256).ok()) << "a plan holds 64 patterns";
}

TEST(JoinPlans, PvSkipStaysWithItsHeads) {
  std::vector<Plan> plans = {window(2, 30), window(3, 40)};
  plans[1].pv_skip = {1, 2, 3, 4};
  const Plan joined = join_plans(plans, std::vector<int>{0, 1, -1, 1});
  constexpr float kNothing = std::numeric_limits<float>::infinity();
  EXPECT_EQ(joined.pv_skip, (std::vector<float>{kNothing, 2, kNothing, 4}));
}

TEST(ShareWindows, AGroupTakesItsWidestOrEverything) {
  Plan p = window(2, 30);
  p.patterns.emplace_back(Window{.sink = 8, .window = 10});
  p.routes = {0, 1, kRouteFull, 0};
  share_windows(p, 4, 2);
  ASSERT_TRUE(check_plan(p, kGrid, 2, 256).ok());
  EXPECT_EQ(p.route(0), p.route(1));
  expect_kept(p, 0, window(8, 30));
  EXPECT_EQ(p.route(2), kRouteFull);
  EXPECT_EQ(p.route(3), kRouteFull);
  Plan same = window(2, 30);
  same.routes = {0, 0, 0, 0};
  share_windows(same, 4, 2);
  EXPECT_EQ(same.patterns.size(), 1u) << "nothing to share";
}

}  // namespace
}  // namespace lacuna
