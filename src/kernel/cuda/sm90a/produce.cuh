// SPDX-License-Identifier: Apache-2.0
// The warps that feed a thread block: one takes tiles and loads Q and K, one loads V. Each walks the tile's boxes
// by itself, so neither waits for what the other's buffers wait for. Lanes issue a box each.
#pragma once

#include "kernel/cuda/sm90a/shared.cuh"

namespace lacuna::kernel::cuda::sm90a {

// One stage of K or V: lane half * kPanels + panel loads a panel of its half's box.
template <class S, int kPanels>
__device__ __forceinline__ void load_stage(unsigned char* to, const CUtensorMap& map, Barrier& full, const Box& box,
                                           int head, int batch, int lane) {
  const int half = lane / kPanels, panel = lane % kPanels;
  if (lane == 0) full.arrive_and_expect(S::kHalves * kPanels * kBoxBytes);
  __syncwarp();
  if (half < S::kHalves)
    load_box(to + (panel * S::kHalves + half) * kBoxBytes, map, full, panel * kBox, box.key, head, batch);
}

// Q of every group of a tile. A tile without keys takes its buffer too: out is staged there.
template <class S>
__device__ __forceinline__ void load_queries(unsigned char* to, const Call& c, Barrier& full, const Rows& first,
                                             int lane) {
  const int group = lane / S::kPanelsK, panel = lane % S::kPanelsK;
  if (lane == 0) full.arrive_and_expect(S::kQBytes);
  __syncwarp();
  if (group >= S::kGroups) return;
  const Rows r = rows_of(c, first, group);
  load_box(to + lane * kBoxBytes, c.q, full, panel * kBox, r.row, r.head, r.batch);
}

template <class S>
__device__ __forceinline__ void produce_queries_and_keys(const Call& c, const Shared<S>& shared, int lane) {
  Control<S>& x = *shared.control;
  Turn<kRing> slot;
  Turn<S::kQBuffers> q;
  Turn<S::kStages> k;
  const int half = lane / S::kPanelsK;
  const bool has_box = half < S::kHalves, tells_box = has_box && lane % S::kPanelsK == 0;
  for (int tile = static_cast<int>(blockIdx.x);; slot.next()) {
    const bool end = tile >= c.tiles;
    const Rows rows = end ? Rows{0, 0, 0} : first_rows<S>(c, tile);
    const Walk walk = end ? Walk{-1, 0} : walk_of<S>(c, rows);
    const int stages = stages_of<S>(walk), kv_head = rows.head / c.group;
    x.slot_empty[slot.index].wait(slot.parity ^ 1);
    if (lane == 0) {
      x.slots[slot.index] = {end ? -1 : stages, walk, rows};
      x.slot_full[slot.index].arrive();
    }
    if (end) break;
    int next = 0;
    if (lane == 0) next = static_cast<int>(atomicAdd(c.work, 1u) + gridDim.x);

    Box box = has_box && stages > 0 ? box_of<S>(c, walk, 0, half) : Box{kNoKey, -1};
    // The first stage of K goes before Q, whose buffer may come later; without keys there is Q alone.
    for (int stage = 0; stage < max(stages, 1); ++stage) {
      if (stage < stages) {
        Box ahead = box;  // on its way while this stage waits for room
        if (has_box && stage + 1 < stages) ahead = box_of<S>(c, walk, stage + 1, half);
        x.k_empty[k.index].wait(k.parity ^ 1);
        if (tells_box) x.boxes[k.index][half] = box;
        __syncwarp();
        load_stage<S, S::kPanelsK>(shared.k + k.index * S::kKBytes, c.k, x.k_full[k.index], box, kv_head, rows.batch,
                                   lane);
        k.next();
        box = ahead;
      }
      if (stage == 0) {
        x.q_empty[q.index].wait(q.parity ^ 1);
        load_queries<S>(shared.q + q.index * S::kQBytes, c, x.q_full[q.index], rows, lane);
        q.next();
      }
    }
    tile = __shfl_sync(kAllLanes, next, 0);
  }
  // The last thread block to come here leaves the counters as it found them: all others have taken their tiles.
  if (lane == 0 && atomicInc(c.work + 1, gridDim.x - 1) == gridDim.x - 1) atomicExch(c.work, 0u);
}

template <class S>
__device__ __forceinline__ void produce_values(const Call& c, const Shared<S>& shared, int lane) {
  Control<S>& x = *shared.control;
  Turn<kRing> slot;
  Turn<S::kStages> v;
  const int half = lane / S::kPanelsV;
  const bool has_box = half < S::kHalves;
  for (;; slot.next()) {
    x.slot_full[slot.index].wait(slot.parity);
    const Slot tile = x.slots[slot.index];
    __syncwarp();
    if (lane == 0) x.slot_empty[slot.index].arrive();
    if (tile.stages < 0) break;
    const Rows& rows = tile.rows;
    const Walk& walk = tile.walk;
    const int kv_head = rows.head / c.group;
    Box box = has_box && tile.stages > 0 ? box_of<S>(c, walk, 0, half) : Box{kNoKey, -1};
    for (int stage = 0; stage < tile.stages; ++stage, v.next()) {
      Box ahead = box;
      if (has_box && stage + 1 < tile.stages) ahead = box_of<S>(c, walk, stage + 1, half);
      x.v_empty[v.index].wait(v.parity ^ 1);
      load_stage<S, S::kPanelsV>(shared.v + v.index * S::kVBytes, c.v, x.v_full[v.index], box, kv_head, rows.batch,
                                 lane);
      box = ahead;
    }
  }
}

}  // namespace lacuna::kernel::cuda::sm90a
