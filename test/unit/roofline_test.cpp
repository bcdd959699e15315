// SPDX-License-Identifier: Apache-2.0
#include "engine/roofline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernel/peak.h"

namespace lacuna {
namespace {

TEST(Roofline, PeaksCountWhatTheyDo) {
  Buffer memory;
  constexpr std::int64_t kBytes = 4096;
  void* at = memory.grow(kBytes);
  std::fill_n(static_cast<char*>(at), kBytes, 1);
  for (int i = 0; i < kernel::kPeakCount; ++i) {
    const kernel::Peak& p = *kernel::kPeaks[i];
    if ((detect_features() & p.needs) != p.needs) continue;
    EXPECT_GT(p.products(10), 0) << p.kernels;
    EXPECT_EQ(p.products(20), 2 * p.products(10)) << p.kernels;
    EXPECT_GT(p.weights(10), 0) << p.kernels;
    EXPECT_EQ(p.weights(20), 2 * p.weights(10)) << p.kernels;
    p.read(at, kBytes);
  }
}

TEST(Roofline, KernelsWithoutAPeakAreUnknown) {
  const auto threads = make_thread_pool(1);
  Roofline roofline;
  EXPECT_FALSE(roofline.of("cpu.ref", detect_features(), {1, 1, 1}, *threads).known);
  EXPECT_FALSE(roofline.of("cpu.amx", 0, {1, 1, 1}, *threads).known);  // a lesser machine
}

// A cell counts once per KV head, however many rows and lists name it, in a tile or gathered.
TEST(Roofline, BytesOfNamedCells) {
  constexpr int kHq = 4, kHkv = 2, kDk = 64, kDv = 32, kRows = 3;
  op::Attend::Args a;
  a.hq = kHq;
  a.hkv = kHkv;
  a.dk = kDk;
  a.dv = kDv;
  a.n_rows = kRows;
  a.n_cells = 200;
  a.k_type = a.v_type = Dtype::f16;
  constexpr double kCell = 2 * (kDk + kDv), kQAndOut = 4.0 * kHq * kRows * (kDk + kDv);
  const std::vector<TileRun> runs = {{0, 3, -1}, {1, 4, -1}, {7, 9, -1}};  // the last: two gathered tiles
  std::vector<std::int32_t> slots(64, -1);
  for (int i = 0; i < 5; ++i) slots[i] = slots[32 + i] = 100 + i;  // the same five cells in both
  a.runs = {.block_q = 2, .n_rows = kRows, .heads = 1, .n_cells = 200, .runs = runs.data(), .slots = slots.data(), .first_gathered = 7};
  const std::int32_t shared[] = {0, 1, 3};  // of two row blocks
  a.runs.row_ptr = shared;
  EXPECT_EQ(bytes_moved(a), kQAndOut + kHkv * (4 * 32 + 5) * kCell);
  const std::int32_t each[] = {0, 1, 1, /**/ 0, 0, 1, /**/ 1, 1, 2, /**/ 2, 2, 3};  // of four query heads
  a.runs.heads = kHq;
  a.runs.row_ptr = each;
  EXPECT_EQ(bytes_moved(a), kQAndOut + (3 * 32 + (3 * 32 + 5)) * kCell);
}

}  // namespace
}  // namespace lacuna
