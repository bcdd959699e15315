// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The sizes of one instance of the backward kernel. A thread block has a producer warpgroup and one or two that
// consume. Each consumer holds 64 rows of one side, queries (q and G) or keys (k and v), and walks boxes of 64 of the
// other, in stages of one or two. x and y name the two tensors of a side: x = q or k, with dk channels; y = G or v,
// with dv.
//
// Two consumers are one team with a tile of 128 rows; or, for lists of 64 rows, two teams, each with a tile, a walk and
// a producer warp of its own. Where memory has no room for that, a lone consumer has a tile of 64 rows. Where registers
// have no room for both sums by keys, there is an instance for each.
#pragma once

#include <cstdint>

#include "kernel/cuda/sm90a/shape.h"

namespace lacuna::kernel::cuda::sm90a::grad {

enum class Side { queries, keys };
enum class Sums { x, y, both };

template <class T, Side kSide, Sums kSums, int kDk_, int kDv_, int kRows_>
struct Shape {
  using Type = T;
  static constexpr bool kKeys = kSide == Side::keys;  // held, and queries walked
  static constexpr bool kSumsX = kSums != Sums::y, kSumsY = kSums != Sums::x;
  static constexpr int kDk = kDk_, kDv = kDv_, kRows = kRows_;                              // kRows: of a tile
  static constexpr int kTeams = kRows == 64 && kDk <= 128 ? 2 : 1, kGroups = kRows / kBox;  // kGroups: of a team
  static constexpr int kThreads = 128 * (1 + kTeams * kGroups);
  static constexpr int kPanelsX = (kDk + kBox - 1) / kBox, kPanelsY = (kDv + kBox - 1) / kBox;
  static constexpr int kPanels = kPanelsX + kPanelsY;
  // Two boxes spare reads of what is held; sums by keys take the registers for them, two teams or wide rows the memory.
  static constexpr int kBoxes = kKeys || kTeams == 2 || kDk > 128 ? 1 : 2;

  static constexpr int kHeldBytes = kGroups * kPanels * kBoxBytes;  // of a team; sums are staged there as well
  static constexpr int kStageBytes = kPanels * kBoxes * kBoxBytes;
  static constexpr int kRowBytes = kKeys ? 2 * kBox * 4 : 0;  // what is known of the queries in a stage
  static constexpr int kSpare = 6144;                         // alignment, barriers, rows
  static constexpr int kFit = (227 * 1024 - kSpare - kTeams * kHeldBytes) / (kTeams * kStageBytes);
  static constexpr int kStages = kFit < 4 ? kFit : 4;
  static constexpr int kTeamBytes = kHeldBytes + kStages * kStageBytes;
  static constexpr int kSharedBytes = kTeams * kTeamBytes + kSpare;
  static_assert(kStages >= 2 && kDv <= kDk && kDk % 16 == 0 && kDv % 16 == 0 && (kKeys || kSums == Sums::x));

  // Registers of a thread: the sums of 64 rows, at most 256 columns of them, and two products with the columns of a
  // stage. A lone consumer has from the start what a thread can have.
  static constexpr bool kPassesRegisters = kThreads > 256;
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
};

}  // namespace lacuna::kernel::cuda::sm90a::grad
