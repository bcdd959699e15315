// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The sizes of one instance of the decode kernel, from four facts: the number type, the head dimensions of K and V, and
// how many warps are a team. A thread block has six or four warps; a team of kTeam takes 16 query rows a warp and
// streams keys in units of 16 for each warp, through a ring of stages of its own.
//
// Rows in shared memory are 16 bytes longer than their numbers, so that 8 neighbours lie in different banks.
#pragma once

#include <cstdint>

namespace lacuna::kernel::cuda::sm80::split {

template <class T, int kDk_, int kDv_, int kTeam_>
struct Shape {
  using Type = T;
  static constexpr int kDk = kDk_, kDv = kDv_, kTeam = kTeam_;
  static constexpr int kWarps = kDk <= 128 && kTeam == 1 ? 6 : 4, kThreads = 32 * kWarps, kTeams = kWarps / kTeam;
  static constexpr int kRows = 16 * kTeam, kKeys = 16 * kTeam;
  // Two thread blocks on a multiprocessor, one at the begin or the end of its keys while the other streams; beyond 128
  // channels a stage is too large for that.
  static constexpr int kBlocksPerSm = kDk <= 128 ? 2 : 1;
  // What the begin of an item costs, in units: as much as 24 KB a warp.
  static constexpr int kStart = kWarps * 24 * 1024 / (kKeys * 2 * (kDk + kDv));

  static constexpr int kPitchK = 2 * kDk + 16, kPitchV = 2 * kDv + 16;  // bytes of a row
  static constexpr int kQBytes = kRows * kPitchK;
  static constexpr int kStageBytes = kKeys * (kPitchK + kPitchV + 4);  // rows of K, rows of V, numbers of the keys
  static constexpr int kSpare = 256;                                   // what the thread block knows of its share
  static constexpr int kBudget = (kBlocksPerSm == 2 ? 113 : 163) * 1024 - kSpare - kQBytes;
  static constexpr int kFit = kBudget / (kTeams * kStageBytes), kStages = kFit < 2 ? 2 : kFit < 6 ? kFit : 6;
  static constexpr int kSharedBytes = kSpare + kQBytes + kTeams * kStages * kStageBytes;

  // What the teams found of a piece takes the place of their rings: sums in rows 8 numbers longer, for the banks.
  static constexpr int kPitchSums = kDv + 8;
  static_assert(kTeams * kRows * (kPitchSums + 2) * 4 <= kTeams * kStages * kStageBytes);
  static_assert(kWarps % kTeam == 0 && kDk % 16 == 0 && kDv % 16 == 0);
};

}  // namespace lacuna::kernel::cuda::sm80::split
