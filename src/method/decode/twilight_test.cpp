// SPDX-License-Identifier: Apache-2.0
// Twilight: the proofs of its sheet.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_dense();
const MethodEntry& method_entry_quest();
const MethodEntry& method_entry_twilight();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

struct Decoded {
  Plan plan;
  Grid grid;
  int count(int h) const {
    int n = 0;
    for (std::int64_t j = 0; j < grid.n_keys; ++j) n += keeps(plan, grid, h, 0, j);
    return n;
  }
};

Decoded decode(MethodLab& lab, std::unique_ptr<Method> m) {
  auto p = m->plan(lab.view(lab.n - 1, lab.n, 2, m->side(2)), lab.context);
  EXPECT_TRUE(p.ok()) << p.error().what;
  return {p.value(), {lab.hq, 1, lab.n, lab.n - 1}};
}
// budget 0: all keys are candidates.
std::unique_ptr<Method> twilight(double mass, int budget = 0) {
  auto base = budget > 0 ? make(method_entry_quest(), {{"budget", budget}}) : make(method_entry_dense());
  auto m = make(method_entry_twilight(), {{"mass", mass}});
  EXPECT_TRUE(static_cast<Wrapper&>(*m).accepts(*base).ok());
  static_cast<Wrapper&>(*m).wrap(std::move(base));
  return m;
}

TEST(Twilight, AllMassLeavesTheCandidatesAsTheyAre) {
  MethodLab lab(2, 1, 600, 32);
  EXPECT_TRUE(is_dense(decode(lab, twilight(1)).plan));
  const Decoded base = decode(lab, make(method_entry_quest(), {{"budget", 128}})), same = decode(lab, twilight(1, 128));
  for (std::int64_t j = 0; j < 600; ++j) ASSERT_EQ(keeps(base.plan, base.grid, 0, 0, j), keeps(same.plan, same.grid, 0, 0, j));
}

// What stays covers the mass of the exact attention, 0.02 aside for the 4 bits; and only candidates stay.
TEST(Twilight, KeepsTheMassAmongTheCandidates) {
  for (const double mass : {0.5, 0.85, 0.95}) {
    MethodLab lab(4, 2, 900, 64, 5);
    const Decoded d = decode(lab, twilight(mass));
    for (int h = 0; h < 4; ++h) {
      double kept = 0, all = 0;
      for (std::int64_t j = 0; j < 900; ++j) {
        const double p = std::exp(lab.logit(h, 899, j));
        all += p;
        kept += keeps(d.plan, d.grid, h, 0, j) ? p : 0;
      }
      EXPECT_GE(kept / all, mass - 0.02) << "head " << h;
    }
    EXPECT_LT(d.count(0), 900);
    const Decoded base = decode(lab, make(method_entry_quest(), {{"budget", 256}})), pruned = decode(lab, twilight(mass, 256));
    for (std::int64_t j = 0; j < 900; ++j)
      if (keeps(pruned.plan, pruned.grid, 1, 0, j)) { ASSERT_TRUE(keeps(base.plan, base.grid, 1, 0, j)); }
    EXPECT_LT(pruned.count(1), base.count(1));
  }
}

// The same mass: a head that looks at one key keeps a few, one that looks at all alike keeps its share.
TEST(Twilight, CountsAdaptToTheHead) {
  MethodLab lab(2, 2, 1000, 32, 6);
  for (int d = 0; d < 32; ++d) {
    lab.k_at(0, 333)[d] = 4 * lab.q_at(0, 999)[d];
    lab.q_at(1, 999)[d] = 0;
  }
  const Decoded d = decode(lab, twilight(0.85));
  EXPECT_LE(d.count(0), 3);
  EXPECT_TRUE(keeps(d.plan, d.grid, 0, 0, 333));
  EXPECT_EQ(d.count(1), 1000) << "all alike: equal estimates stay together";
}

// ||o - o_dense|| <= 2 (1 - mass) max ||v||, here with what the exact scores say was lost.
TEST(Twilight, OutputErrorIsBoundByTheLostMass) {
  MethodLab lab(1, 1, 800, 32, 8);
  const Decoded d = decode(lab, twilight(0.9));
  double lost = 0, all = 0, largest = 0;
  for (std::int64_t j = 0; j < 800; ++j) {
    const double p = std::exp(lab.logit(0, 799, j));
    all += p;
    lost += keeps(d.plan, d.grid, 0, 0, j) ? 0 : p;
    double size = 0;
    for (int c = 0; c < 32; ++c) size += static_cast<double>(lab.v_at(0, j)[c]) * lab.v_at(0, j)[c];
    largest = std::max(largest, std::sqrt(size));
  }
  const auto kept = lab.attend(0, 799, [&](std::int64_t j) { return keeps(d.plan, d.grid, 0, 0, j); });
  const auto exact = lab.attend(0, 799, [](std::int64_t) { return true; });
  double error = 0;
  for (std::size_t c = 0; c < 32; ++c) error += (kept[c] - exact[c]) * (kept[c] - exact[c]);
  EXPECT_LE(std::sqrt(error), 2 * lost / all * largest);
  EXPECT_LE(lost / all, 0.12);
}

TEST(Twilight, DoesNotPruneTwice) {
  auto outer = make(method_entry_twilight());
  const Status no = static_cast<Wrapper&>(*outer).accepts(*twilight(0.9));
  ASSERT_FALSE(no.ok());
  EXPECT_NE(no.error().what.find("pruned already"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
