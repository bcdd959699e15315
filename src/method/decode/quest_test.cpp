// SPDX-License-Identifier: Apache-2.0
// Quest: the proofs of its sheet.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_quest();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

// One decoded token after `n` keys.
Result<Plan> decode(MethodLab& lab, const Method& m) { return m.plan(lab.view(lab.n - 1, lab.n, 2, m.side(2)), lab.context); }
Grid grid_of(const MethodLab& lab) { return {lab.hq, 1, lab.n, lab.n - 1}; }

int kept_keys(const MethodLab& lab, const Plan& p, int h) {
  int n = 0;
  for (std::int64_t j = 0; j < lab.n; ++j) n += keeps(p, grid_of(lab), h, 0, j);
  return n;
}

TEST(Quest, ABudgetOfEverythingIsDenseAndSoArePrefillAndTheFirstLayers) {
  MethodLab lab(2, 1, 500, 16);
  EXPECT_TRUE(is_dense(decode(lab, *make(method_entry_quest(), {{"budget", 512}})).value()));
  auto m = make(method_entry_quest(), {{"budget", 64}});
  EXPECT_FALSE(is_dense(decode(lab, *m).value()));
  EXPECT_TRUE(is_dense(m->plan(lab.view(499, 500, 1, m->side(1)), lab.context).value())) << "layer 1";
  EXPECT_TRUE(is_dense(m->plan(lab.view(0, 500, 2, m->side(2)), lab.context).value())) << "prefill";
}

// The pages kept are those of the highest bounds, counted by the definition; ties are none in random data.
TEST(Quest, KeepsThePagesOfHighestBoundAndItsOwn) {
  for (const std::int64_t n : {481, 490, 496, 500}) {
    MethodLab lab(4, 2, n, 24, static_cast<std::uint64_t>(n));
    auto m = make(method_entry_quest(), {{"budget", 80}, {"share", 0}});
    auto p = decode(lab, *m);
    ASSERT_TRUE(p.ok());
    const std::int64_t pages = (n + 15) / 16, own = (n - 1) / 16;
    for (int h = 0; h < 4; ++h) {
      std::vector<std::pair<double, std::int64_t>> bound;
      for (std::int64_t page = 0; page < pages; ++page) {
        double sum = 0;
        for (int d = 0; d < 24; ++d) {
          double mn = page == own && n % 16 ? 0 : 1e9, mx = page == own && n % 16 ? 0 : -1e9;  // empty cells are zeros
          for (std::int64_t j = page * 16; j < std::min(n, (page + 1) * 16); ++j) {
            mn = std::min<double>(mn, lab.k_at(h / 2, j)[d]);
            mx = std::max<double>(mx, lab.k_at(h / 2, j)[d]);
          }
          const double q = lab.q_at(h, n - 1)[d];
          sum += std::max(q * mn, q * mx);
        }
        if (page != own) bound.push_back({-sum, page});
      }
      std::sort(bound.begin(), bound.end());
      for (std::size_t i = 0; i < bound.size(); ++i)
        EXPECT_EQ(keeps(p.value(), grid_of(lab), h, 0, bound[i].second * 16), i < 5) << "head " << h << " rank " << i;
      EXPECT_TRUE(keeps(p.value(), grid_of(lab), h, 0, n - 1));
    }
  }
}

// P = 8 is the smallest page; with a key per page that stands out, its page is kept whatever the rest does.
TEST(Quest, FindsANeedleWhereverItStands) {
  for (const std::int64_t at : {0, 7, 100, 255, 256, 300, 511}) {
    MethodLab lab(2, 1, 512, 32, 5);
    for (int h = 0; h < 2; ++h)
      for (int d = 0; d < 32; ++d) lab.k_at(0, at)[d] += 4 * lab.q_at(0, 511)[d] + 4 * lab.q_at(1, 511)[d];
    auto p = decode(lab, *make(method_entry_quest(), {{"budget", 48}, {"share", 1}}));
    ASSERT_TRUE(p.ok());
    for (int h = 0; h < 2; ++h) EXPECT_TRUE(keeps(p.value(), grid_of(lab), h, 0, at)) << at;
  }
}

// Shuffling the tokens inside pages changes nothing.
TEST(Quest, OrderInsideAPageDoesNotMatter) {
  MethodLab lab(2, 2, 320, 16, 7);
  auto m = make(method_entry_quest(), {{"budget", 64}, {"share", 0}});
  const Plan before = decode(lab, *m).value();
  for (std::int64_t page = 0; page < 19; ++page)
    for (int h = 0; h < 2; ++h) std::swap_ranges(lab.k_at(h, page * 16 + 3), lab.k_at(h, page * 16 + 3) + 16, lab.k_at(h, page * 16 + 11));
  const Plan after = decode(lab, *m).value();
  for (int h = 0; h < 2; ++h)
    for (std::int64_t j = 0; j < 320; ++j) ASSERT_EQ(keeps(before, grid_of(lab), h, 0, j), keeps(after, grid_of(lab), h, 0, j));
}

TEST(Quest, TheBudgetIsWhatItSays) {
  MethodLab lab(4, 2, 1000, 16, 9);
  auto p = decode(lab, *make(method_entry_quest(), {{"budget", 160}, {"share", 1}}));
  for (int h = 0; h < 4; ++h) EXPECT_LE(kept_keys(lab, p.value(), h), 160 + 16);
  for (std::int64_t j = 0; j < 1000; ++j) ASSERT_EQ(keeps(p.value(), grid_of(lab), 0, 0, j), keeps(p.value(), grid_of(lab), 1, 0, j));
}

TEST(Quest, NamesWhatDoesNotFit) {
  EXPECT_NE(make(method_entry_quest(), {{"page", 24}})->check().error().what.find("quest.page: got 24"), std::string::npos);
  EXPECT_NE(make(method_entry_quest(), {{"budget", 40}})->check().error().what.find("quest.budget: got 40"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
