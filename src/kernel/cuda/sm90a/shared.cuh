// SPDX-License-Identifier: Apache-2.0
// The shared memory of a thread block, and whose turn it is with each part of it: every buffer has a barrier
// `full` (its bytes have come) and a barrier `empty` (all who read it are done).
#pragma once

#include "kernel/cuda/sm90a/ptx.cuh"
#include "kernel/cuda/sm90a/work.cuh"

namespace lacuna::kernel::cuda::sm90a {

// Which of kBuffers comes next, and the parity of its phase. A reader waits for `full` with parity(); a writer for
// `empty` with !parity(), which holds at once the first time round.
template <int kBuffers>
struct Turn {
  int index = 0;
  std::uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++index == kBuffers) {
      index = 0;
      parity ^= 1;
    }
  }
};

// Consumers start products in turn, one exponentiating while another multiplies. Numbered barriers: 1 + group: that
// group's turn; behind them 1 + kGroups + group: the group's threads among themselves.
template <class S>
struct Turns {
  int mine, next;
  __device__ __forceinline__ explicit Turns(int group) : mine(1 + group), next(1 + (group + 1) % S::kGroups) {
    if (group == S::kGroups - 1) pass();  // group 0 begins
  }
  __device__ __forceinline__ void wait() {
    if constexpr (S::kGroups > 1) named_sync(mine, 256);
  }
  __device__ __forceinline__ void pass() {
    if constexpr (S::kGroups > 1) named_arrive(next, 256);
  }
};

template <class S>
struct Control {
  Barrier q_full[S::kQBuffers], q_empty[S::kQBuffers];
  Barrier k_full[S::kStages], k_empty[S::kStages], v_full[S::kStages], v_empty[S::kStages];
  Barrier slot_full[kRing], slot_empty[kRing];
  Slot slots[kRing];
  Box boxes[S::kStages][2];  // of the keys in a stage of K

  __device__ void init() {
    constexpr int kWarps = 4 * S::kGroups;
    for (int i = 0; i < S::kQBuffers; ++i) {
      q_full[i].init(1);
      q_empty[i].init(S::kGroups);
    }
    for (int i = 0; i < S::kStages; ++i) {
      k_full[i].init(1);
      v_full[i].init(1);
      k_empty[i].init(kWarps);
      v_empty[i].init(kWarps);
    }
    for (int i = 0; i < kRing; ++i) {
      slot_full[i].init(1);
      slot_empty[i].init(kWarps + 1);  // consumers and the warp that loads V
    }
    publish_barriers();
  }
};

template <class S>
struct Shared {
  unsigned char* q;  // [kQBuffers][group][panel] boxes; panels of K and V: [stage][panel][half] boxes
  unsigned char* k;
  unsigned char* v;
  Control<S>* control;

  static __device__ __forceinline__ Shared at(unsigned char* base) {
    static_assert(sizeof(Control<S>) + 1024 <= S::kSpare);
    const std::uint32_t address = shared_address(base);
    base += (1024 - address % 1024) % 1024;  // whole groups of 8 rows
    Shared s;
    s.q = base;
    s.k = s.q + S::kQBuffers * S::kQBytes;
    s.v = s.k + S::kStages * S::kKBytes;
    s.control = reinterpret_cast<Control<S>*>(s.v + S::kStages * S::kVBytes);
    return s;
  }
};

}  // namespace lacuna::kernel::cuda::sm90a
