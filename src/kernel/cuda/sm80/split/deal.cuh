// SPDX-License-Identifier: Apache-2.0
// Deals the units of all items evenly to the thread blocks, in order: block w has units [all w / parts, all (w + 1) /
// parts). The counts are on the device alone, so every block adds them up for itself.
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
__device__ __forceinline__ int units_of(const Call& c, int list) {
  return max(1, (keys_of(c, list) + S::kKeys - 1) / S::kKeys);
}

// What a thread block has to do.
struct Share {
  std::int64_t all, begin, end;  // units
  std::int64_t before;           // units before those of `list`
  std::int32_t list;             // the one that `begin` is of
  std::int32_t parts;            // thread blocks that have something to do

  // Who has a unit.
  __device__ __forceinline__ int owner(std::int64_t unit) const {
    return static_cast<int>(((unit + 1) * parts - 1) / all);
  }
};

struct DealMemory {
  std::int64_t sums[8];
  std::int64_t before;
  std::int32_t list;
};

template <class S>
__device__ __forceinline__ Share deal(const Call& c, DealMemory& memory) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int lists = c.batch * c.list_heads, each = (lists + S::kThreads - 1) / S::kThreads;
  const int first = min(thread * each, lists), last = min(first + each, lists);
  std::int64_t own = 0;
  for (int list = first; list < last; ++list) own += std::int64_t{units_of<S>(c, list)} * c.items;
  std::int64_t before = own;
  for (int step = 1; step < 32; step *= 2) {
    const std::int64_t other = __shfl_up_sync(kAllLanes, before, static_cast<unsigned>(step));
    if (lane >= step) before += other;
  }
  if (lane == 31) memory.sums[warp] = before;
  before -= own;
  __syncthreads();
  Share s{};
  for (int w = 0; w < S::kWarps; ++w) {
    if (w < warp) before += memory.sums[w];
    s.all += memory.sums[w];
  }
  // A part below two units for each team would cost more in its beginning and end than it saves.
  const std::int64_t wanted = (s.all + 2 * S::kTeams - 1) / (2 * S::kTeams);
  s.parts = static_cast<int>(min(wanted, std::int64_t{gridDim.x}));
  const int mine = min(static_cast<int>(blockIdx.x), s.parts);
  s.begin = s.all * mine / s.parts;
  s.end = s.all * min(mine + 1, s.parts) / s.parts;
  if (before <= s.begin && s.begin < before + own) {
    int list = first;
    for (std::int64_t units = 0; before + (units = std::int64_t{units_of<S>(c, list)} * c.items) <= s.begin; ++list)
      before += units;
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
  std::int32_t item;          // among all
  std::int32_t sequence, kv_head, row;  // row: the first of the KV head's group * nq rows
  std::int32_t list, length, keys;      // keys: that the list names
  std::int32_t begin, end;              // units, of `units`
  std::int32_t units;
  std::int64_t first;                   // the item's first unit among all

  __device__ __forceinline__ bool whole() const { return begin == 0 && end == units; }
};

template <class S>
__device__ __forceinline__ Piece piece_at(const Call& c, const Share& s, std::int64_t at, int list,
                                          std::int64_t before) {
  Piece p;
  p.units = units_of<S>(c, list);
  const int in_list = static_cast<int>((at - before) / p.units), head = in_list / c.row_tiles;
  p.item = list * c.items + in_list;
  p.sequence = list / c.list_heads;
  p.kv_head = c.list_heads == 1 ? head : list % c.list_heads;
  p.row = in_list % c.row_tiles * S::kRows;
  p.list = list;
  p.length = length_of(c, p.sequence);
  p.keys = keys_of(c, list);
  p.first = before + std::int64_t{in_list} * p.units;
  p.begin = static_cast<int>(at - p.first);
  p.end = static_cast<int>(min(std::int64_t{p.units}, s.end - p.first));
  return p;
}

}  // namespace lacuna::kernel::cuda::sm80::split
