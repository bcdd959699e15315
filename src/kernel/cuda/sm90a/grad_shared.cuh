// SPDX-License-Identifier: Apache-2.0
// The shared memory of a team: what its tile holds, and the stages that it walks. Every buffer has a barrier `full`
// and a barrier `empty`, as forward's have (sm90a/shared.cuh).
#pragma once

#include "kernel/cuda/grad_rows.h"
#include "kernel/cuda/sm90a/grad_work.cuh"
#include "kernel/cuda/sm90a/shared.cuh"

namespace lacuna::kernel::cuda::sm90a::grad {

template <class S>
struct Control {
  alignas(16) float rows[S::kKeys ? S::kStages : 1][2 * kBox];  // of the queries in a stage: x, then y
  Barrier held_full, held_empty, full[S::kStages], empty[S::kStages];
  Tile tile;  // that is held
  Box boxes[S::kStages][S::kBoxes];

  __device__ void init() {
    held_full.init(1);
    held_empty.init(S::kGroups);
    for (int i = 0; i < S::kStages; ++i) {
      full[i].init(1);
      empty[i].init(4 * S::kGroups);
    }
    publish_barriers();
  }
};

template <class S>
struct Team {
  unsigned char* held;    // x: [group][panel] boxes, then y
  unsigned char* stages;  // of each x: [panel][box] boxes, then y
  Control<S>* control;

  static __device__ __forceinline__ Team at(unsigned char* base, int team) {
    static_assert(S::kTeams * sizeof(Control<S>) + 1024 <= S::kSpare);
    base += (1024 - shared_address(base) % 1024) % 1024;  // whole groups of 8 rows
    Team t;
    t.held = base + team * S::kTeamBytes;
    t.stages = t.held + S::kHeldBytes;
    t.control = reinterpret_cast<Control<S>*>(base + S::kTeams * S::kTeamBytes) + team;
    return t;
  }
};

}  // namespace lacuna::kernel::cuda::sm90a::grad
