// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The sizes of one instance of the backward kernel. A thread block has a producer warpgroup and two that consume.
// Each consumer holds 64 rows of one side, queries (q and G) or keys (k and v), and walks boxes of 64 of the other, in
// stages of one or two. x and y name the two tensors of a side: x = q or k, with dk channels; y = G or v, with dv.
//
// The consumers are one team with a tile of 128 rows; or, for lists of 64 rows, two teams, each with a tile, a walk
// and a producer warp of its own.
#pragma once

#include <cstdint>

#include "kernel/cuda/sm90a/shape.h"

namespace lacuna::kernel::cuda::sm90a::grad {

enum class Side { queries, keys };

template <class T, Side kSide, int kDk_, int kDv_, int kTeams_>
struct Shape {
  using Type = T;
  static constexpr bool kKeys = kSide == Side::keys;                                    // held, and queries walked
  static constexpr int kDk = kDk_, kDv = kDv_, kTeams = kTeams_, kGroups = 2 / kTeams;  // groups of a team
  static constexpr int kRows = kBox * kGroups, kThreads = 128 * 3;
  static constexpr int kPanelsX = (kDk + kBox - 1) / kBox, kPanelsY = (kDv + kBox - 1) / kBox;
  static constexpr int kPanels = kPanelsX + kPanelsY;
  // Two boxes spare reads of what is held; sums by keys take the registers for them, two teams the memory.
  static constexpr int kBoxes = kKeys || kTeams == 2 ? 1 : 2;

  static constexpr int kHeldBytes = kGroups * kPanels * kBoxBytes;  // of a team; sums are staged there as well
  static constexpr int kStageBytes = kPanels * kBoxes * kBoxBytes;
  static constexpr int kRowBytes = kKeys ? 2 * kBox * 4 : 0;  // what is known of the queries in a stage
  static constexpr int kSpare = 6144;                         // alignment, barriers, rows
  static constexpr int kFit = (227 * 1024 - kSpare - kTeams * kHeldBytes) / (kTeams * kStageBytes);
  static constexpr int kStages = kFit < 4 ? kFit : 4;
  static constexpr int kTeamBytes = kHeldBytes + kStages * kStageBytes;
  static constexpr int kSharedBytes = kTeams * kTeamBytes + kSpare;
  static_assert(kStages >= 2 && kDk <= 128 && kDv <= kDk && kDk % 16 == 0 && kDv % 16 == 0);

  // Registers of a thread: by keys two sums of 64 x 128 and two products of 64 x 64, by queries one sum of 64 x 128 and
  // two products of 64 x 128.
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
};

}  // namespace lacuna::kernel::cuda::sm90a::grad
