// SPDX-License-Identifier: Apache-2.0
#include "pattern/kept_cells.h"

#include <gtest/gtest.h>

#include <vector>

namespace lacuna {
namespace {

using Words = std::vector<std::uint32_t>;

// Four tiles of a cache, rows in blocks of two; tiles 4 and up are gathered.
struct Lists {
  std::vector<std::int32_t> row_ptr, slots;
  std::vector<TileRun> runs;
  Words words;
  TileRuns view(std::int32_t heads, std::int32_t heads_per_list) const {
    return {.block_q = 2, .n_rows = 3, .heads = heads, .n_cells = 128, .row_ptr = row_ptr.data(), .runs = runs.data(),
            .words = words.data(), .heads_per_list = heads_per_list, .slots = slots.data(), .first_gathered = 4};
  }
};

Words kept(const TileRuns& runs, int head, std::int32_t row) {
  Words words(4, 0xdeadbeef);
  kept_cells(runs, head, row, words);
  return words;
}

TEST(KeptCells, OfWholeTilesAndOfParts) {
  const Lists l{.row_ptr = {0, 2, 3}, .slots = {}, .runs = {{0, 2, -1}, {3, 4, 0}, {1, 2, 1}}, .words = {0xf0, 0x0f, 0x3, 0}};
  EXPECT_EQ(kept(l.view(1, 1), 0, 0), (Words{0xffffffff, 0xffffffff, 0, 0xf0}));
  EXPECT_EQ(kept(l.view(1, 1), 5, 1), (Words{0xffffffff, 0xffffffff, 0, 0x0f}));
  EXPECT_EQ(kept(l.view(1, 1), 0, 2), (Words{0, 0x3, 0, 0}));
}

TEST(KeptCells, OfGatheredTilesAreWhereTheyLie) {
  std::vector<std::int32_t> slots(32, -1);
  slots[0] = 100, slots[1] = 5, slots[2] = 31;
  const Lists l{.row_ptr = {0, 1, 1}, .slots = slots, .runs = {{4, 5, 0}}, .words = {0x3, 0x7}};
  EXPECT_EQ(kept(l.view(1, 1), 0, 0), (Words{1u << 5, 0, 0, 1u << 4}));
  EXPECT_EQ(kept(l.view(1, 1), 0, 1), (Words{1u << 5 | 1u << 31, 0, 0, 1u << 4}));
}

TEST(KeptCells, EachGroupOfHeadsHasItsList) {
  const Lists l{.row_ptr = {0, 1, 1, 1, 2, 2}, .slots = {}, .runs = {{0, 1, -1}, {2, 3, -1}}, .words = {}};
  EXPECT_EQ(kept(l.view(2, 2), 1, 0), (Words{0xffffffff, 0, 0, 0}));
  EXPECT_EQ(kept(l.view(2, 2), 2, 0), (Words{0, 0, 0xffffffff, 0}));
}

}  // namespace
}  // namespace lacuna
