// SPDX-License-Identifier: Apache-2.0
// What the thread blocks of a launch share: the call in the kernel's terms, how it is cut into tiles, and what a tile
// walks. Held and walked are the two sides, queries and keys; a tile of keys walks all query heads of its KV head,
// one after the other, so that its sums are whole when it ends.
//
// Tiles are numbered as forward's are (sm90a/work.cuh): by sections of heads whose walked tensors stay in the L2 cache
// together, in a section the longest of a causal triangle first, heads innermost.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "kernel/cuda/sm90a/grad_shape.h"
#include "kernel/cuda/sm90a/work.cuh"

namespace lacuna::kernel::cuda::sm90a::grad {

struct Call {
  CUtensorMap held_x, held_y, walked_x, walked_y, d_x, d_y;  // boxes of 64 x 64
  const float* rows;                                         // grad_rows.h
  std::int32_t hq, group, nq, nk;                            // group: query heads of a KV head
  std::int32_t offset;  // causal: row i sees keys up to i + offset; else offset = nk, so all of them
  float scale, scale_log2;
  std::int32_t held_heads, row_tiles, head_tiles, tiles, section;
  // Lists by blocks of the held side; row_ptr null: none.
  const std::int32_t *row_ptr, *names, *bits;
  const std::uint32_t* words;
  std::int32_t block_q, block_k, block_held, boxes_per_block;  // boxes of a walked block
  std::int32_t heads_per_list, lists_per_batch;                // lists_per_batch 0: every sequence has the same
  std::uint32_t* work;                                         // next tile, producers that are done
};

// Rows of the held side, of one of its heads, and how many stages it walks; < 0: there are no more tiles.
struct Tile {
  std::int32_t batch, head, row, stages;
};
template <class S>
__device__ __forceinline__ Tile tile_of(const Call& c, int number) {
  const int whole = c.row_tiles * c.section, section = number / whole, in_section = number - section * whole;
  const int heads = min(c.section, c.head_tiles - section * c.section);
  const int down = in_section / heads, at = section * c.section + in_section % heads;
  return {at / c.held_heads, at % c.held_heads, (S::kKeys ? down : c.row_tiles - 1 - down) * S::kRows, 0};
}

// The boxes that a tile walks of one query head: from an entry of its list on; without lists from a box on.
struct Walk {
  std::int32_t first, boxes;
};
template <class S>
__device__ __forceinline__ Walk walk_of(const Call& c, const Tile& t, int query_head) {
  if (!c.row_ptr) {
    const int end = S::kKeys ? c.nq : max(0, min(c.nk, min(t.row + S::kRows, c.nq) + c.offset));
    const int first = S::kKeys ? max(0, t.row - c.offset) / kBox : 0;
    return {first, max(0, (end + kBox - 1) / kBox - first)};
  }
  const int blocks = ((S::kKeys ? c.nk : c.nq) + c.block_held - 1) / c.block_held;
  const std::int64_t list = static_cast<std::int64_t>(t.batch) * c.lists_per_batch + query_head / c.heads_per_list;
  const std::int32_t* at = c.row_ptr + list * (blocks + 1) + t.row / c.block_held;
  return {at[0], max(0, at[1] - at[0]) * c.boxes_per_block};
}

template <class S>
__device__ __forceinline__ int stages_of(const Walk& w) {
  return (w.boxes + S::kBoxes - 1) / S::kBoxes;
}

// One box of a walk: its first row, and the mask of its block (-1: all is set). Beyond the walk's end: beyond all keys.
struct Box {
  std::int32_t row, bits;
};
__device__ __forceinline__ Box box_of(const Call& c, const Walk& w, int i) {
  if (i >= w.boxes) return {kNoKey, -1};
  if (!c.row_ptr) return {(w.first + i) * kBox, -1};
  const int entry = w.first + i / c.boxes_per_block, part = i % c.boxes_per_block;
  return {(__ldg(c.names + entry) * c.boxes_per_block + part) * kBox, c.bits ? __ldg(c.bits + entry) : -1};
}

}  // namespace lacuna::kernel::cuda::sm90a::grad
