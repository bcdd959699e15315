// SPDX-License-Identifier: Apache-2.0
// The warp that feeds a team: takes tiles, loads what they hold and then what they walk. Lanes issue a box each.
#pragma once

#include "kernel/cuda/sm90a/grad_shared.cuh"

namespace lacuna::kernel::cuda::sm90a::grad {

template <class S>
__device__ __forceinline__ void load_held(const Call& c, const Team<S>& team, const Tile& t, int lane) {
  Barrier& full = team.control->held_full;
  if (lane == 0) full.arrive_and_expect(S::kHeldBytes);
  __syncwarp();
  const bool is_y = lane >= S::kGroups * S::kPanelsX;
  const int panels = is_y ? S::kPanelsY : S::kPanelsX, i = is_y ? lane - S::kGroups * S::kPanelsX : lane;
  if (lane < S::kGroups * S::kPanels)
    load_box(team.held + lane * kBoxBytes, is_y ? c.held_y : c.held_x, full, i % panels * kBox,
             t.row + i / panels * kBox, t.head, t.batch);
}

// box: the one of which this lane loads a panel.
template <class S>
__device__ __forceinline__ void load_stage(const Call& c, const Team<S>& team, int stage, const Box& box, int head,
                                           int query_head, int batch, int lane) {
  Control<S>& x = *team.control;
  if (lane < S::kBoxes) x.boxes[stage][lane] = box;
  __syncwarp();
  if (lane == 0) x.full[stage].arrive_and_expect(S::kStageBytes + S::kRowBytes);
  __syncwarp();
  const int panel = lane / S::kBoxes;
  const bool is_y = panel >= S::kPanelsX;
  if (panel < S::kPanels)
    load_box(team.stages + stage * S::kStageBytes + lane * kBoxBytes, is_y ? c.walked_y : c.walked_x, x.full[stage],
             (is_y ? panel - S::kPanelsX : panel) * kBox, box.row, head, batch);
  if (S::kKeys && panel == S::kPanels) {
    load_bytes(x.rows[stage], c.rows + grad_row_at(std::int64_t{batch} * c.hq + query_head, box.row, c.nq),
               S::kRowBytes, x.full[stage]);
  }
}

template <class S>
__device__ __forceinline__ void produce(const Call& c, const Team<S>& team, int team_index, int lane) {
  Control<S>& x = *team.control;
  const int producers = static_cast<int>(gridDim.x) * S::kTeams;
  Turn<1> held;
  Turn<S::kStages> stage;
  for (int number = static_cast<int>(blockIdx.x) * S::kTeams + team_index;; held.next()) {
    const bool end = number >= c.tiles;
    Tile t = end ? Tile{0, 0, 0, -1} : tile_of<S>(c, number);
    const int first_head = S::kKeys ? t.head * c.group : t.head, heads = end ? 0 : S::kKeys ? c.group : 1;
    for (int h = 0; h < heads; ++h) t.stages += stages_of<S>(walk_of<S>(c, t, first_head + h));
    x.held_empty.wait(held.parity ^ 1);
    if (lane == 0) x.tile = t;
    if (end) {
      if (lane == 0) x.held_full.arrive();
      break;
    }
    int next = 0;
    if (lane == 0) next = static_cast<int>(atomicAdd(c.work, 1u)) + producers;
    load_held<S>(c, team, t, lane);
    for (int h = first_head; h < first_head + heads; ++h) {
      const Walk walk = walk_of<S>(c, t, h);
      for (int i = 0; i < stages_of<S>(walk); ++i, stage.next()) {
        const Box box = box_of(c, walk, i * S::kBoxes + lane % S::kBoxes);
        x.empty[stage.index].wait(stage.parity ^ 1);
        load_stage<S>(c, team, stage.index, box, S::kKeys ? h : t.head / c.group, h, t.batch, lane);
      }
    }
    number = __shfl_sync(kAllLanes, next, 0);
  }
  // The last producer to come here leaves the counters as it found them: all others have taken their tiles.
  if (lane == 0 && atomicInc(c.work + 1, static_cast<unsigned>(producers - 1)) == static_cast<unsigned>(producers - 1))
    atomicExch(c.work, 0u);
}

}  // namespace lacuna::kernel::cuda::sm90a::grad
