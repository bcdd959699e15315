// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Budget: of a row of masses the fewest that carry a share (block/budget/top_mass.h, mode reach and within), by a
// thread block of four warps, without sorting.
//
// A mass is not negative, so its bits order as it does. The least mass that is kept is searched among all numbers: each
// step four warps add up what is not below a number each, so the range shrinks to a fifth. A warp adds in one
// order whatever the number is, and rounding keeps x <= y: the sums fall as the number rises, the same each time.
#pragma once

#include <cstdint>

#include "kernel/cuda/math.cuh"

namespace lacuna::kernel::cuda {

constexpr int kChooseWarps = 4, kChooseThreads = 32 * kChooseWarps;

__device__ __forceinline__ float sum_of_warp(float x) {
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) x += __shfl_xor_sync(kAllLanes, x, bit);
  return x;
}

// What is open of a row: items [first, last) of p, and the sum that the kept ones of them must reach. Within: the sum
// must not be passed instead.
struct Open {
  const float* p;  // in shared memory
  int first, last;
  float goal;
  bool within;
};

// The sum over open items whose bits are `least` or more; of a whole warp.
__device__ __forceinline__ float sum_from(const Open& o, std::uint32_t least, int lane) {
  float sum = 0;
  for (int i = o.first + lane; i < o.last; i += 32) {
    const float x = o.p[i];
    sum += __float_as_uint(x) >= least ? x : 0.0f;
  }
  return sum_of_warp(sum);
}

// Kept: bits above `bits`, and the first `ties` of those equal to it.
struct Least {
  std::uint32_t bits;
  int ties;
};

// Every thread of the block calls it, and it begins and ends where all are together. flags: kChooseWarps * 2 of them.
__device__ __forceinline__ Least least_kept(const Open& o, int* flags) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  constexpr std::uint32_t kEnd = 0x7f800000u;  // above all numbers
  if (!o.within && !(o.goal > 0)) return {kEnd, 0};
  // lo holds, hi does not: the sum from a number on reaches the goal; within: it passes the goal.
  const auto holds = [&](float sum) { return o.within ? sum > o.goal : sum >= o.goal; };
  std::uint32_t lo = 0, hi = kEnd;
  if (o.first >= o.last || !holds(sum_from(o, 0, lane))) return {0, o.last - o.first};  // all that are open
  for (int turn = 0; hi - lo > 1; turn ^= 1) {
    const auto probe = [&](int w) {
      return lo + static_cast<std::uint32_t>(static_cast<std::uint64_t>(hi - lo) * (w + 1) / (kChooseWarps + 1));
    };
    int* held = flags + turn * kChooseWarps;
    const float sum = sum_from(o, probe(warp), lane);
    if (lane == 0) held[warp] = holds(sum);
    __syncthreads();
    int last = -1;  // sums fall, so those that hold come first
    for (int w = 0; w < kChooseWarps; ++w)
      if (held[w]) last = w;
    const std::uint32_t low = last < 0 ? lo : probe(last), high = last + 1 < kChooseWarps ? probe(last + 1) : hi;
    lo = low;
    hi = high;
  }
  const float above = sum_from(o, lo + 1, lane), equal = __uint_as_float(lo);
  if (!(equal > 0)) return {lo, o.within ? 0 : o.last - o.first};
  const float ties = (o.goal - above) / equal;
  const float n = o.within ? floorf(ties) : fmaxf(1.0f, ceilf(ties));
  return {lo, static_cast<int>(fminf(fmaxf(n, 0.0f), static_cast<float>(o.last - o.first)))};
}

// Writes the bits of a row and returns their number, of one warp. forced(i): item i is kept whatever its mass is;
// chosen(i): it was among those that `least` was found for.
template <class Forced, class Chosen>
__device__ __forceinline__ int write_kept(const float* p, int n, int words, const Least& least, Forced&& forced,
                                          Chosen&& chosen, std::uint32_t* to, int lane) {
  int count = 0, met = 0;
  for (int word = 0; word < words; ++word) {
    const int i = 32 * word + lane;
    const bool there = i < n, always = there && forced(i), open = there && chosen(i);
    const std::uint32_t bits = open ? __float_as_uint(p[i]) : 0;
    const bool tie = open && bits == least.bits;
    const std::uint32_t all_ties = __ballot_sync(kAllLanes, tie);
    const bool early = met + __popc(all_ties & ((1u << lane) - 1)) < least.ties;
    const std::uint32_t kept = __ballot_sync(kAllLanes, always || (open && bits > least.bits) || (tie && early));
    met += __popc(all_ties);
    count += __popc(kept);
    if (lane == 0) to[word] = kept;
  }
  return count;
}

}  // namespace lacuna::kernel::cuda
