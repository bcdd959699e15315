// SPDX-License-Identifier: Apache-2.0
// A thread's share of the pairs of 64 held rows with a box of 64 walked ones: from scores to p, from p and the
// products of G and v to ds. A product of 64 x 64 lies in the registers of a warpgroup as sm90a/softmax.cuh describes:
// register 4 g + 2 i + e is column 8 g + 2 (t % 4) + e of the thread's row i.
#pragma once

#include "kernel/cuda/sm90a/grad_shared.cuh"
#include "kernel/cuda/sm90a/softmax.cuh"

namespace lacuna::kernel::cuda::sm90a::grad {

// Whether some of 64 held rows from `row` on may not see all of a box. Queries beyond the last need no mask: their p
// is 0.
template <class S>
__device__ __forceinline__ bool hides(const Call& c, int row, const Box& box) {
  return box.bits >= 0 ||
         (S::kKeys ? row + kBox > box.row + c.offset + 1 : box.row + kBox > min(c.nk, row + c.offset + 1));
}

// Of the scores of a stage's box kIndex: hides those of pairs that the block's mask does not have. row: the thread's
// first, of `row` and row + 8.
template <class S, int kIndex, int N>
__device__ __forceinline__ void hide_unset(float (&s)[N], const Call& c, int row, const Box& box, int lane) {
  const int words = c.block_k / 32, walked = box.row + 2 * (lane % 4);
  const std::uint32_t* mask = c.words + std::int64_t{box.bits} * c.block_q * words;
#pragma unroll
  for (int g = 0; g < 8; ++g)
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int held = row + 8 * i, to = walked + 8 * g + e, query = S::kKeys ? to : held, key = S::kKeys ? held : to;
        const std::uint32_t word = __ldg(mask + query % c.block_q * words + key % c.block_k / 32);
        if (!(word >> key % 32 & 1u)) s[32 * kIndex + 4 * g + 2 * i + e] = minus_infinity();
      }
}

// Hides those of all invisible pairs.
template <class S, int kIndex, int N>
__device__ __forceinline__ void hide(float (&s)[N], const Call& c, int row, const Box& box, int lane) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int held = row + 8 * i, to = box.row + 2 * (lane % 4);
    const int begin = S::kKeys ? held - c.offset - to : 0;
    const int end = S::kKeys ? kBox : min(c.nk, held + c.offset + 1) - to;
#pragma unroll
    for (int g = 0; g < 8; ++g)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        if (8 * g + e < begin || 8 * g + e >= end) s[32 * kIndex + 4 * g + 2 * i + e] = minus_infinity();
  }
  if (box.bits >= 0) hide_unset<S, kIndex>(s, c, row, box, lane);
}

// What is known of queries (grad_rows.h). Held, a thread has those of its two rows in registers; walked, they are
// those of the stage, and every column has its own.
template <class S>
struct QueryRows {
  float x[2], y[2];

  static __device__ __forceinline__ float2 columns(const float* walked, int g, int lane) {
    if constexpr (S::kKeys) return *reinterpret_cast<const float2*>(walked + 8 * g + 2 * (lane % 4));
    return {};
  }

  // p from scores.
  template <int N>
  __device__ __forceinline__ void weigh(float (&s)[N], const float* walked, float scale_log2, int lane) const {
#pragma unroll
    for (int g = 0; g < N / 4; ++g) {
      const float2 at = columns(walked, g, lane);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& w = s[4 * g + 2 * i + e];
          w = exp2_fast(fmaf(w, scale_log2, -(S::kKeys ? e ? at.y : at.x : x[i])));
        }
    }
  }
  // ds from p and the products of G and v, in the place of these.
  template <int N>
  __device__ __forceinline__ void differentiate(float (&u)[N], const float (&p)[N], const float* walked,
                                                int lane) const {
#pragma unroll
    for (int g = 0; g < N / 4; ++g) {
      const float2 at = columns(walked + kBox, g, lane);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int r = 4 * g + 2 * i + e;
          u[r] = p[r] * (u[r] - (S::kKeys ? e ? at.y : at.x : y[i]));
        }
    }
  }
};

}  // namespace lacuna::kernel::cuda::sm90a::grad
