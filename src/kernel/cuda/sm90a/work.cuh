// SPDX-License-Identifier: Apache-2.0
// What the thread blocks of a launch share: the call in the kernel's terms, and how it is cut into tiles.
//
// A tile is the rows of one thread block at a time: either kRows rows of a head, or (paired) 64 rows of as many
// neighbouring heads as there are consumer warpgroups, which must share their list. Tiles are numbered by sections of
// heads whose keys and values stay in the L2 cache together, in a section from the last rows to the first, heads
// innermost: causal tiles come longest first, and heads that share keys run side by side. Keys are named by boxes
// of 64.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernel/cuda/sm90a/shape.h"

namespace lacuna::kernel::cuda::sm90a {

constexpr std::int32_t kNoKey = 1 << 30;  // a box beyond all keys: TMA fills zeros, and every pair is masked

struct Call {
  CUtensorMap q, k, v, out;  // [batch][heads][rows][channels], boxes of 64 x 64
  float* lse;
  std::int32_t hq, group, nq, nk;  // group: query heads of a KV head
  std::int32_t offset;             // causal: row i sees keys up to i + offset; else offset = nk, so all of them
  float scale_log2;
  std::int32_t paired, row_tiles, head_tiles, tiles;
  std::int32_t section;  // head tiles of a section
  // Lists; row_ptr null: none.
  const std::int32_t *row_ptr, *columns, *bits;
  const uint2* words;                            // a row of 64 keys each
  std::int32_t block_q, boxes_per_block;         // boxes_per_block: 1 or 2 (block_k / 64)
  std::int32_t heads_per_list, lists_per_batch;  // lists_per_batch 0: every sequence has the same
  std::uint32_t* work;                           // next tile, thread blocks that are done
};

// Where 64 rows are.
struct Rows {
  std::int32_t batch, head, row;
};
// Those of a tile's first group; and of each, from these.
template <class S>
__device__ __forceinline__ Rows first_rows(const Call& c, int tile) {
  const int whole = c.row_tiles * c.section, section = tile / whole, in_section = tile - section * whole;
  const int heads = min(c.section, c.head_tiles - section * c.section);
  const int down = in_section / heads, at = section * c.section + in_section % heads;
  const int head = c.paired ? at * S::kGroups : at;
  return {head / c.hq, head % c.hq, (c.row_tiles - 1 - down) * (c.paired ? kBox : S::kRows)};
}
__device__ __forceinline__ Rows rows_of(const Call& c, Rows first, int group) {
  (c.paired ? first.head : first.row) += group * (c.paired ? 1 : kBox);
  return first;
}

// The boxes of keys that a tile walks, in order: entries of a list, or of all keys the last `count` boxes down to 0.
struct Walk {
  std::int32_t first;  // entry in columns; -1: no list
  std::int32_t boxes;
};
template <class S>
__device__ __forceinline__ Walk walk_of(const Call& c, const Rows& r) {
  if (!c.row_ptr) {
    const int last_row = min(r.row + (c.paired ? kBox : S::kRows), c.nq) - 1;
    const int end = max(0, min(c.nk, last_row + c.offset + 1));
    return {-1, (end + kBox - 1) / kBox};
  }
  const int blocks = (c.nq + c.block_q - 1) / c.block_q;
  const std::int64_t list = static_cast<std::int64_t>(r.batch) * c.lists_per_batch + r.head / c.heads_per_list;
  const std::int32_t* at = c.row_ptr + list * (blocks + 1) + r.row / c.block_q;
  const int begin = at[0];
  return {begin, max(0, at[1] - begin) * c.boxes_per_block};
}
template <class S>
__device__ __forceinline__ int stages_of(const Walk& w) {
  return (w.boxes + S::kHalves - 1) / S::kHalves;
}

// One box of a stage: its first key, and where the bits of its rows begin in words (-1: all are set).
struct Box {
  std::int32_t key, bits;
};
template <class S>
__device__ __forceinline__ Box box_of(const Call& c, const Walk& w, int stage, int half) {
  if (w.first < 0) return {kBox * ((stages_of<S>(w) - 1 - stage) * S::kHalves + half), -1};
  const int at = stage * S::kHalves + half;
  if (at >= w.boxes) return {kNoKey, -1};
  const int entry = w.first + at / c.boxes_per_block, part = at % c.boxes_per_block;
  const int mask = c.bits ? __ldg(c.bits + entry) : -1;
  return {(__ldg(c.columns + entry) * c.boxes_per_block + part) * kBox,
          mask < 0 ? -1 : mask * c.block_q * c.boxes_per_block + part};
}

// What the warp that deals tells the others of a tile. stages < 0: there are no more.
struct Slot {
  std::int32_t stages;
  Walk walk;
  Rows rows;  // of the first group: finding them takes divisions, which consumers have no time for
};

}  // namespace lacuna::kernel::cuda::sm90a
