// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The sizes of one instance of the kernel, all from four facts: the number type, the head dimensions of K and V,
// and how many warpgroups consume. A thread block of 1 + kGroups warpgroups works on tiles of 64 rows for each
// group, and streams keys in stages of 64 or 128.
//
// Shared memory holds every operand in panels of 64 columns (128 bytes, TMA's widest swizzle), of 8 KB for each 64
// rows; the last panel of a head dimension that is no multiple of 64 is partly zeros.
#pragma once

#include <cstdint>

namespace lacuna::kernel::cuda::sm90a {

constexpr int kBox = 64;  // rows and columns of what TMA moves at a time
constexpr int kBoxBytes = kBox * kBox * 2;
constexpr int kRing = 4;  // tiles that the producer may be ahead

template <class T, int kDk_, int kDv_, int kGroups_>
struct Shape {
  using Type = T;
  static constexpr int kDk = kDk_, kDv = kDv_, kGroups = kGroups_;
  static constexpr int kThreads = 128 * (1 + kGroups), kRows = kBox * kGroups;
  static constexpr int kPanelsK = (kDk + kBox - 1) / kBox, kPanelsV = (kDv + kBox - 1) / kBox;
  // One group has thread blocks of half an SM each, so that two still overlap; 256 channels leave no room for that.
  static constexpr int kBlocksPerSm = kGroups == 1 && kDk <= 192 ? 2 : 1;
  static constexpr int kHalves = kDk > 192 ? 1 : 2;  // boxes of keys in a stage
  static constexpr int kKeys = kBox * kHalves;

  static constexpr int kQBytes = kGroups * kPanelsK * kBoxBytes;  // out is staged there as well
  static constexpr int kKBytes = kHalves * kPanelsK * kBoxBytes, kVBytes = kHalves * kPanelsV * kBoxBytes;
  static constexpr int kSpare = 2048;  // alignment, barriers
  static constexpr int kBudget = (kBlocksPerSm == 2 ? 113 : 227) * 1024 - kSpare;
  static constexpr int kQBuffers = 2 * (kQBytes + kKBytes + kVBytes) <= kBudget ? 2 : 1;
  static constexpr bool kJoinsTiles = kQBuffers == 2;  // scores of a tile beside the last values of the one before
  static constexpr int kFit = (kBudget - kQBuffers * kQBytes) / (kKBytes + kVBytes);
  static constexpr int kStages = kFit < 4 ? kFit : 4;
  static constexpr int kTensorBytes = kQBuffers * kQBytes + kStages * (kKBytes + kVBytes);
  static constexpr int kSharedBytes = kTensorBytes + kSpare;
  static_assert(kStages >= 1 && kDv <= kDk && kDk % 16 == 0 && kDv % 16 == 0);

  // Registers of a thread. All start with their share of the multiprocessor's 64 K; then producers pass some on,
  // except where the share is all that a thread can have.
  static constexpr bool kPassesRegisters = kThreads * kBlocksPerSm > 256;
  static constexpr int kProducerRegisters = kGroups == 3 ? 32 : kGroups == 2 ? 56 : 40;
  static constexpr int kConsumerRegisters = kGroups == 3 ? 160 : kGroups == 2 ? 224 : 208;
};

}  // namespace lacuna::kernel::cuda::sm90a
