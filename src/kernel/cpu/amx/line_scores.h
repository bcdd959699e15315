// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Products by tiles, straight into the chunks of kernel/cpu/lane16/line_sums.inc.
#pragma once

#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/avx512/side_vec.h"

#include "kernel/cpu/lane16/line_sums.inc"

namespace lacuna::kernel::amx {
namespace {

namespace lines = avx512::lines;
using lines::Args;
static_assert(lines::kGroup == 2 * kTileRows);

int channel_tiles(const Args& a) { return static_cast<int>(ceil_div(a.dk, kTileDepth)); }

template <class Tiles>
struct Scores {
  using State = Tiles;
  static std::size_t bytes(const Args& a) { return 2 * static_cast<std::size_t>(channel_tiles(a)) * kTileBytes; }
  static void prepare(const Args& a, int head, std::int64_t first, int rows, char* q) {
    const int depth = channel_tiles(a);
    for (int r = 0; r < lines::kGroup; ++r)
      put_row(a.q + head * a.q_head + (r < rows ? first + r : first) * a.q_row, r < rows ? a.dk : 0, depth, r % kTileRows,
              q + r / kTileRows * depth * kTileBytes);
  }
  static void fill(Tiles& tiles, const Args& a, int head, int, std::int64_t from, std::int64_t keys, const char* q, float* to) {
    const int depth = channel_tiles(a), kv_head = head / (a.hq / a.hkv);
    for (std::int64_t j = from; j < keys; j += 2 * kTileRows) {
      // The second half tile is not always there: the first then stands in for it.
      const std::int64_t half = (a.first_cell + j) / 16, next = j + 16 < keys ? half + 1 : half;
      const char *left = half_tile(a.packed_k, depth, half, kv_head), *right = half_tile(a.packed_k, depth, next, kv_head);
      if (j == from) product_2x2(tiles, q, q + depth * kTileBytes, left, right, depth);
      else product_2x2_behind(tiles, to + j - from - 32, lines::kRow, q, q + depth * kTileBytes, left, right, depth);
    }
    store_2x2(tiles, to + (keys - 1 - from) / 32 * 32, lines::kRow);
  }
};

[[maybe_unused]] const char* why_not_products(const Args& a) {
  if (a.packed_k.format != PackFormat::pair16_bf16) return "K is not packed as pair16_bf16";
  if (a.first_cell % 16) return "the first cell must be a multiple of 16";
  return nullptr;
}

}  // namespace
}  // namespace lacuna::kernel::amx
