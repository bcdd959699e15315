// SPDX-License-Identifier: Apache-2.0
// Deals the units of all items evenly to the thread blocks, in order. To begin an item costs as much as kStart units,
// so that is what it counts for: the span of an item is kStart + its units. The counts are on the device alone, so
// every block adds them up for itself.
#pragma once

#include "kernel/cuda/math.cuh"
#include "kernel/cuda/sm80/split/call.h"

namespace lacuna::kernel::cuda::sm80::split {

__device__ __forceinline__ int length_of(const Call& c, int sequence) {
  return c.lengths ? min(max(__ldg(c.lengths + sequence), 0), c.nk) : c.nk;
}
// Keys that a list names, those beyond the sequence's end too.
__device__ __forceinline__ int keys_of(const Call& c, int list) {
  if (!c.counts) return length_of(c, list);
  return min(max(__ldg(c.counts + list), 0), c.most) << c.entry_shift;
}
template <class S>
__device__ __forceinline__ int units_of(int keys) {
  return max(1, (keys + S::kKeys - 1) / S::kKeys);
}
template <class S>
__device__ __forceinline__ int span_of(int keys) {
  return S::kStart + units_of<S>(keys);
}

// What a thread block has to do: `begin` to `end` of the items' spans, one after another.
struct Share {
  std::int32_t begin, end;
  std::int32_t list, before;  // the list that `begin` is of; what comes before its items
  std::int32_t each, more;    // thread blocks have `each`, the first `more` of them one more

  // Who has a place.
  __device__ __forceinline__ int owner(int at) const {
    const int edge = more * (each + 1);
    return at < edge ? at / (each + 1) : more + (at - edge) / each;
  }
};

struct DealMemory {
  std::int32_t sums[8], list, before;
};

template <class S>
__device__ __forceinline__ Share deal(const Call& c, DealMemory& memory) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int lists = c.batch * c.list_heads, some = (lists + S::kThreads - 1) / S::kThreads;
  const int first = min(thread * some, lists), last = min(first + some, lists);
  int own = 0;
  for (int list = first; list < last; ++list) own += span_of<S>(keys_of(c, list)) * c.items;
  int before = own;
  for (unsigned step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(kAllLanes, before, step);
    if (lane >= static_cast<int>(step)) before += other;
  }
  if (lane == 31) memory.sums[warp] = before;
  before -= own;
  __syncthreads();
  int all = 0;
  for (int w = 0; w < S::kWarps; ++w) {
    if (w < warp) before += memory.sums[w];
    all += memory.sums[w];
  }
  // A share below two units for each team would cost more in its beginning and end than it saves.
  const int parts = min((all - 1) / (2 * S::kTeams) + 1, static_cast<int>(gridDim.x));
  Share s;
  s.each = all / parts, s.more = all % parts;
  const int mine = min(static_cast<int>(blockIdx.x), parts);
  s.begin = mine * s.each + min(mine, s.more);
  s.end = mine == parts ? s.begin : s.begin + s.each + (mine < s.more);
  if (before <= s.begin && s.begin < before + own) {
    int list = first;
    for (int spans = 0; before + (spans = span_of<S>(keys_of(c, list)) * c.items) <= s.begin; ++list) before += spans;
    memory.list = list;
    memory.before = before;
  }
  __syncthreads();
  s.list = memory.list;
  s.before = memory.before;
  return s;
}

// The units of one item that a thread block takes at a time.
struct Piece {
  std::int32_t item;                          // among all
  std::int32_t list, sequence, kv_head, row;  // row: the first of the KV head's group * nq rows
  std::int32_t length, keys;                  // keys: that the list names
  std::int32_t first, span;                   // of the item among all spans
  std::int32_t units, begin, end;             // of the item; here

  __device__ __forceinline__ bool whole() const { return begin == 0 && end == units; }
};

template <class S>
__device__ __forceinline__ Piece piece_at(const Call& c, const Share& s, int at, int list, int before) {
  Piece p;
  p.list = list;
  p.sequence = list / c.list_heads;
  p.length = length_of(c, p.sequence);
  p.keys = keys_of(c, list);
  p.units = units_of<S>(p.keys);
  p.span = span_of<S>(p.keys);
  const int in_list = (at - before) / p.span, head = in_list / c.row_tiles;
  p.item = list * c.items + in_list;
  p.kv_head = c.list_heads == 1 ? head : list % c.list_heads;
  p.row = in_list % c.row_tiles * S::kRows;
  p.first = before + in_list * p.span;
  p.begin = max(0, at - p.first - S::kStart);
  p.end = min(p.units, s.end - p.first - S::kStart);  // not above 0: another block begins the item
  return p;
}

}  // namespace lacuna::kernel::cuda::sm80::split
