// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// How an AMX call is cut up: strips of a KV head, units of 32 stacked rows, tiles of 32 keys (docs/decisions/021).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "op/attend.h"

namespace lacuna::kernel::amx {
namespace {

using Args = op::Attend::Args;

constexpr int kUnitRows = 2 * kTileRows;
constexpr int kSpanTiles = 32;                // that are copied: 512 KB of K and V at head_dim 128
constexpr int kInPlaceTiles = 16;             // that are read in place
constexpr int kStackedRows = 256;             // most rows per strip where heads are stacked
constexpr int kMaxStrips = 16;                // per task, where tiles are copied: that is what they share,
constexpr std::size_t kStateBytes = 1 << 20;  // and the most that their units may take in the L2 cache
constexpr int kCopyHeads = 4;                 // tiles are copied where this divides the KV heads
constexpr int kTasksPerWorker = 4;            // tasks differ in length: leave something to balance with
constexpr float kUnseen = -1e38f;  // top of a row that has seen nothing; finite, so that -inf - kUnseen is -inf
constexpr float kNone = -__builtin_inff();

// Sizes that follow from the head dimensions, in tiles of 1 KB.
struct Shape {
  int depth;     // products per score tile
  int channels;  // C tiles per 16 rows of output, an even number
  explicit Shape(const Args& a) : depth(ceil_div(a.dk, kTileDepth)), channels(2 * ceil_div(a.dv, 32)) {}
};

// One tile of keys for the rows of a strip.
struct Keys {
  const char* k;               // [half of 16 keys][depth] B tiles
  const char* v;               // [channels / 2] pairs of B tiles, v_step bytes apart
  const std::uint32_t* words;  // of row 0 of the block; null: all rows see all keys
  std::int64_t first_cell;
  bool last = false;  // of its list
};

// A row block of some query heads that share a list of tiles.
struct Strip {
  int first_head, first_row, rows, stacked;
  int first_unit;            // of the task's
  const TileRun *run, *end;  // what is left of its list,
  std::int32_t tile;         // from this tile of `run` on; kNoTile: nothing
  Keys span[kSpanTiles];
  int n;  // of span in use
};
constexpr std::int32_t kNoTile = INT32_MAX;

struct Row {
  int head, row;  // row of the call
};
Row stacked_row(const Strip& s, int i) { return {s.first_head + i / s.rows, s.first_row + i % s.rows}; }

// 32 stacked rows on their way through the tiles.
struct Unit {
  const Strip* strip = nullptr;
  int first = 0;          // of the strip's stacked rows
  int live = 0;           // rows in use
  char* q = nullptr;      // [2][depth] A tiles
  float* acc = nullptr;   // [2][channels] C tiles
  float* top = nullptr;   // [32] what weights are relative to, in base 2
  float* zero = nullptr;  // [32] what a FastWeigher makes of top
  float* most = nullptr;  // [32] largest base-2 logit so far, for pv_skip
  float* sum = nullptr;   // [32][16] sum of weights in parts

  Unit() = default;
  Unit(const Strip& s, int u, const Shape& shape, char* at)
      : strip(&s), first(u * kUnitRows), live(s.stacked - first < kUnitRows ? s.stacked - first : kUnitRows), q(at) {
    acc = reinterpret_cast<float*>(at + std::size_t{2} * shape.depth * kTileBytes);
    sum = acc + std::size_t{2} * shape.channels * (kTileBytes / sizeof(float));
    top = sum + kUnitRows * 16;
    zero = top + kUnitRows;
    most = zero + kUnitRows;
  }
  int first_in_block() const { return first % strip->rows; }
  Row row(int r) const { return stacked_row(*strip, first + r); }
  bool sees(const std::uint32_t* words) const {
    std::uint32_t any = 0;
    int row = first_in_block();
    for (int r = 0; r < live; ++r) {
      any |= words[row];
      if (++row == strip->rows) row = 0;
    }
    return any != 0;
  }
  // Sixteen channels of a row of acc.
  float* acc_at(const Shape& shape, int r, int channel_tile) const {
    return acc + (r / kTileRows * shape.channels + channel_tile) * 256 + r % kTileRows * 16;
  }
};

std::size_t unit_bytes(const Shape& s) {
  return std::size_t{2} * (s.depth + s.channels) * kTileBytes + kUnitRows * sizeof(float) * (3 + 16);
}
std::size_t span_bytes(const Shape& s) { return std::size_t{kSpanTiles} * (2 * s.depth + s.channels) * kTileBytes; }

// How a call is cut into tasks.
struct Split {
  int rows = 0;  // of a full block
  int blocks = 0;
  int heads = 1;                                                            // query heads per strip
  int per_kv = 0;                                                           // strips of a KV head
  int strips = 1;                                                           // per task, at most
  int units() const { return strips * ceil_div(heads * rows, kUnitRows); }  // per task, at most
  int tasks_per_kv() const { return ceil_div(per_kv, strips); }
};

// With `workers` = 0: the largest tasks any number of workers may get.
Split split_of(const Args& a, int workers) {
  Split s;
  s.rows = a.runs.block_q < a.n_rows ? a.runs.block_q : a.n_rows;
  s.blocks = ceil_div(a.n_rows, a.runs.block_q);
  const int enough = kTasksPerWorker * workers;
  const int per_list = a.hq / a.runs.heads;  // query heads
  const int of_kv = a.hq / a.hkv, group = per_list < of_kv ? per_list : of_kv;
  // With pv_skip stacked heads would share groups, and how many are stacked depends on the workers.
  // Heads that fill one unit together cost what one of them does: there is nothing to balance.
  for (int heads = a.pv_skip ? 1 : group; heads > 1; --heads) {
    if (group % heads || heads * s.rows > kStackedRows) continue;
    if (workers && heads * s.rows > kUnitRows && static_cast<long>(a.hq / heads) * s.blocks < enough) continue;
    s.heads = heads;
    break;
  }
  s.per_kv = of_kv / s.heads * s.blocks;
  const auto fits = [&] {
    return s.strips == 1 || (s.units() * unit_bytes(Shape(a)) <= kStateBytes && a.hkv * s.tasks_per_kv() >= enough);
  };
  const int most = a.hkv % kCopyHeads ? 1 : kMaxStrips;
  for (s.strips = s.per_kv < most ? s.per_kv : most; !fits();) --s.strips;
  if (workers) s.strips = ceil_div(s.per_kv, s.tasks_per_kv());  // alike
  return s;
}

}  // namespace
}  // namespace lacuna::kernel::amx
