// SPDX-License-Identifier: Apache-2.0
// A batch of mixed lengths, padded at the left: every sequence of it is a call whose first cells nobody
// sees. Its real rows come out as if they were alone.
#include <gtest/gtest.h>

#include "support/problem.h"

namespace lacuna {
namespace {

using testing::Output;
using testing::Problem;

// The last n tokens of p as a sequence of its own.
Problem tail_of(const Problem& p, int n) {
  testing::Shape s = p.s;
  s.n = n;
  Problem t(s);
  const auto size = static_cast<std::size_t>(n) * static_cast<std::size_t>(s.d);
  for (int h = 0; h < s.hq; ++h)
    std::copy_n(p.q.begin() + static_cast<std::ptrdiff_t>(p.at(h, p.s.n - n)), size, t.q.begin() + static_cast<std::ptrdiff_t>(t.at(h, 0)));
  for (int h = 0; h < s.hkv; ++h) {
    std::copy_n(p.k.begin() + static_cast<std::ptrdiff_t>(p.at(h, p.s.n - n)), size, t.k.begin() + static_cast<std::ptrdiff_t>(t.at(h, 0)));
    std::copy_n(p.v.begin() + static_cast<std::ptrdiff_t>(p.at(h, p.s.n - n)), size, t.v.begin() + static_cast<std::ptrdiff_t>(t.at(h, 0)));
  }
  return t;
}

std::vector<std::int32_t> in_order(int n) {
  std::vector<std::int32_t> cells;
  for (int t = 0; t < n; ++t) cells.push_back(t);
  return cells;
}

constexpr int kReal = 500;
constexpr const char* kSpecs[] = {"dense", "streamingllm:sink=4:window=50", "trianglemix:layer_start=0:sink=4:window=50:last_rows=60",
                                  "xattention:stride=4:block=64:mass=0.6"};

// One sequence of kReal tokens behind `padding` cells that no row sees; with the rows of the padding,
// which see nothing, or without.
struct Padded {
  Problem all;
  testing::MixedCall m;
  Padded(int padding, bool with_rows)
      : all({4, 2, kReal + padding, 16, 7}), m({{&all, with_rows ? 0 : padding, in_order(kReal + padding)}}, all.s.n) {
    const int first = with_rows ? 0 : padding;
    for (int i = first; i < all.s.n; ++i) {
      const auto row = static_cast<std::ptrdiff_t>(i - first);
      std::fill_n(m.mask.begin() + row * all.s.n, i < padding ? all.s.n : padding, testing::kHidden);
      if (i < padding) m.row_cell[static_cast<std::size_t>(row)] = -1;
    }
    for (int c = 0; c < all.s.n; ++c) m.cell_pos[static_cast<std::size_t>(c)] = c < padding ? -1 : c - padding;
  }
};

double largest_difference(const Output& a, int a_first, const Output& b) {
  double worst = 0;
  for (int h = 0; h < 4; ++h)
    for (int i = 0; i < kReal; ++i)
      for (int d = 0; d < 16; ++d)
        worst = std::max(worst, std::abs(static_cast<double>(a.row(h, a_first + i)[d]) - b.row(h, i)[d]));
  return worst;
}

Output alone(const char* spec, const Problem& p, double* density) {
  Output o(4, kReal, 16);
  auto session = testing::open(spec);
  EXPECT_TRUE(session.value()->attend(testing::call_of(p, 0, kReal, kReal, o)).ok());
  *density = session.value()->report().prefill.density();
  return o;
}

TEST(LeftPadded, CellsOfThePaddingChangeNothing) {
  for (const char* spec : kSpecs)
    for (const int padding : {1, 37, 64, 300}) {
      SCOPED_TRACE(fmt::format("{} padding={}", spec, padding));
      Padded p(padding, false);
      auto session = testing::open(spec);
      ASSERT_TRUE(session.value()->attend(p.m.call).ok());
      double density = 0;
      const Output want = alone(spec, tail_of(p.all, kReal), &density);
      EXPECT_NEAR(session.value()->report().prefill.density(), density, 1e-9);
      EXPECT_LT(largest_difference(p.m.output, 0, want), 3e-5);
    }
}

// Where the rows of the padding come along, the call is dense and says so; they themselves give 0.
TEST(LeftPadded, RowsOfThePaddingMakeTheCallDense) {
  for (const char* spec : kSpecs)
    for (const int padding : {1, 37, 64, 300}) {
      SCOPED_TRACE(fmt::format("{} padding={}", spec, padding));
      Padded p(padding, true);
      auto session = testing::open(spec);
      ASSERT_TRUE(session.value()->attend(p.m.call).ok());
      double density = 0;
      const Output want = alone("dense", tail_of(p.all, kReal), &density);
      EXPECT_LT(largest_difference(p.m.output, padding, want), 3e-5);
      for (int h = 0; h < 4; ++h) EXPECT_EQ(p.m.output.row(h, padding - 1)[3], 0.0f);
      EXPECT_EQ(session.value()->report().note.empty(), std::string(spec) == "dense");
    }
}

}  // namespace
}  // namespace lacuna
