// SPDX-License-Identifier: Apache-2.0
// The inverse of a selection names each (row, cell) pair of it once and nothing else, in order.
#include "pattern/invert.h"

#include <algorithm>
#include <set>
#include <tuple>

#include <gtest/gtest.h>

#include "support/attend_case.h"

namespace lacuna::test {
namespace {

using Pair = std::tuple<int, int, std::int64_t>;  // list, row, cell

// From the selection; a pair named twice fails.
std::set<Pair> pairs_of(const TileRuns& x) {
  std::set<Pair> all;
  for (int list = 0; list < x.heads; ++list)
    for (int row = 0; row < x.n_rows; ++row) {
      const std::int32_t* p = x.row_ptr + static_cast<std::ptrdiff_t>(list) * (x.n_blocks() + 1) + row / x.block_q;
      for (std::int32_t r = p[0]; r < p[1]; ++r)
        for (std::int32_t t = x.runs[r].begin; t < x.runs[r].end; ++t)
          for (int b = 0; b < kTileKeys; ++b) {
            const std::int32_t bits = x.runs[r].bits;
            if (bits >= 0 && !(x.words[std::int64_t{bits} * x.block_q + row % x.block_q] >> b & 1u)) continue;
            EXPECT_TRUE(all.emplace(list, row, x.cell(t, b)).second);
          }
    }
  return all;
}

std::set<Pair> pairs_of(const InverseRuns& x, const TileRuns& of) {
  std::set<Pair> all;
  for (int list = 0; list < x.heads; ++list)
    for (std::int32_t t = 0; t < x.tiles; ++t) {
      const std::int32_t* p = x.tile_ptr + static_cast<std::ptrdiff_t>(list) * (x.tiles + 1) + t;
      for (std::int32_t i = p[0]; i < p[1]; ++i) {
        const InverseEntry e = x.entries[i];
        EXPECT_TRUE(i == p[0] || x.entries[i - 1].block < e.block) << "blocks out of order or twice";
        for (int r = 0; r < of.block_q && e.block * of.block_q + r < of.n_rows; ++r)
          for (int b = 0; b < kTileKeys; ++b) {
            if (e.bits >= 0 && !(x.words[std::int64_t{e.bits} * of.block_q + r] >> b & 1u)) continue;
            EXPECT_TRUE(all.emplace(list, e.block * of.block_q + r, std::int64_t{t} * kTileKeys + b).second);
          }
      }
    }
  return all;
}

// The selection that an inverse came from, as a list of single tiles.
struct Back {
  std::vector<std::int32_t> row_ptr{};
  std::vector<TileRun> runs;
  TileRuns view;
  Back(const InverseRuns& x, const TileRuns& of) : view(of) {
    for (int list = 0; list < x.heads; ++list)
      for (std::int32_t b = 0; b <= of.n_blocks(); ++b) {
        row_ptr.push_back(static_cast<std::int32_t>(runs.size()));
        for (std::int32_t t = 0; b < of.n_blocks() && t < x.tiles; ++t) {
          const std::int32_t* p = x.tile_ptr + static_cast<std::ptrdiff_t>(list) * (x.tiles + 1) + t;
          for (std::int32_t i = p[0]; i < p[1]; ++i)
            if (x.entries[i].block == b) runs.push_back({t, t + 1, x.entries[i].bits});
        }
      }
    view.row_ptr = row_ptr.data();
    view.runs = runs.data();
    view.words = x.words;
    view.slots = nullptr;
    view.first_gathered = INT32_MAX;
  }
};

TEST(Invert, EveryPairOnceAndBackAgain) {
  InvertedRuns inverse, again;  // reused, as callers do
  int gathered = 0;
  for (int i = 0; i < 240; ++i) {
    AttendSpec s{.hq = 4,
                 .hkv = 2,
                 .dk = 16,
                 .dv = 16,
                 .n_rows = i % 7 == 0 ? 1 : 1 + i * 5 % 83,
                 .n_cells = 1 + i * 13 % 210,
                 .block_q = 1 + i * 11 % 70,
                 .mask = static_cast<MaskKind>(i % 5),
                 .lists = static_cast<Lists>(i % 3),
                 .gather = static_cast<Gather>(i / 2 % 3)};
    s.seed = static_cast<std::uint64_t>(i) + 1;
    SCOPED_TRACE(s.line());
    AttendCase c(s);
    AttendResult unused;
    const TileRuns runs = c.args(PackFormat::none, Precision::fast, unused).runs;
    gathered += runs.slots != nullptr;
    invert(runs, inverse);
    ASSERT_EQ(inverse.view.heads, runs.heads);
    EXPECT_EQ(pairs_of(inverse.view, runs), pairs_of(runs));

    const Back back(inverse.view, runs);
    EXPECT_EQ(pairs_of(back.view), pairs_of(runs));
    invert(back.view, again);
    EXPECT_EQ(again.tile_ptr, inverse.tile_ptr);
    ASSERT_EQ(again.entries.size(), inverse.entries.size());
    for (std::size_t e = 0; e < again.entries.size(); ++e) {
      EXPECT_EQ(again.entries[e].block, inverse.entries[e].block);
      EXPECT_EQ(again.entries[e].bits, inverse.entries[e].bits);
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(gathered, 100);
}

TEST(Invert, NoRowsAndNoCells) {
  const std::int32_t none[2] = {0, 0};
  InvertedRuns inverse;
  invert({.block_q = 64, .n_rows = 0, .heads = 1, .n_cells = 70, .row_ptr = none}, inverse);
  EXPECT_EQ(inverse.view.tiles, 3);
  EXPECT_EQ(inverse.tile_ptr, (std::vector<std::int32_t>{0, 0, 0, 0}));
  invert({.block_q = 64, .n_rows = 5, .heads = 1, .n_cells = 0, .row_ptr = none}, inverse);
  EXPECT_EQ(inverse.view.tiles, 0);
  EXPECT_EQ(inverse.tile_ptr, std::vector<std::int32_t>{0});
}

}  // namespace
}  // namespace lacuna::test
