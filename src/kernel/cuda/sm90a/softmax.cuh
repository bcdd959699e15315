// SPDX-License-Identifier: Apache-2.0
// A thread's share of the softmax over the scores of a warpgroup's 64 rows.
//
// The tensor cores leave a sum of 64 x N in the registers of 128 threads: thread t has rows r = 16 (t / 32) +
// (t % 32) / 4 and r + 8, and of each group of 8 columns two neighbours, from 2 (t % 4) on. Register 4 g + 2 i + e is
// column 8 g + 2 (t % 4) + e of the thread's row i. Four threads share a row.
//
// Scores are kept unscaled; m is the largest of them, l the thread's own part of sum exp2((s - m) scale_log2).
#pragma once

#include "kernel/cuda/sm90a/ptx.cuh"
#include "kernel/cuda/sm90a/work.cuh"

namespace lacuna::kernel::cuda::sm90a {

__device__ __forceinline__ float minus_infinity() { return __int_as_float(static_cast<int>(0xff800000u)); }

// The first key that not every row from `row` on sees.
__device__ __forceinline__ int certain_end(const Call& c, int row) { return max(0, min(c.nk, row + c.offset + 1)); }

// Hides what the thread's rows, `row` and row + 8, do not see of the stage's boxes. Scores [32 h ...] are of box h.
template <int kHalves>
__device__ __forceinline__ void mask_scores(float (&s)[kHalves * 32], const Call& c, int row, const Box (&box)[kHalves],
                                            int lane) {
  const int column = 2 * (lane % 4);
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int end = min(c.nk, row + 8 * i + c.offset + 1) - box[h].key - column;
#pragma unroll
      for (int g = 0; g < 8; ++g)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (8 * g + e >= end) s[32 * h + 4 * g + 2 * i + e] = minus_infinity();
      if (box[h].bits < 0) continue;
      uint2 word = __ldg(c.words + box[h].bits + (row + 8 * i & c.block_q - 1) * c.boxes_per_block);
      word.x >>= column;
      word.y >>= column;
#pragma unroll
      for (int g = 0; g < 8; ++g)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (!((g < 4 ? word.x : word.y) >> (8 * (g % 4) + e) & 1u)) s[32 * h + 4 * g + 2 * i + e] = minus_infinity();
    }
  }
}

struct Softmax {
  float m[2], l[2], shrink[2];  // shrink: what the last scores made of earlier sums

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      m[i] = minus_infinity();
      l[i] = 0;
      shrink[i] = 1;
    }
  }

  // Turns scores into weights exp2((s - m) scale_log2). fmaxf passes NaN over, but its weight is NaN.
  template <int N>
  __device__ __forceinline__ void weigh(float (&s)[N], float scale_log2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = m[i];
#pragma unroll
      for (int g = 0; g < N / 4; ++g) top = fmaxf(top, fmaxf(s[4 * g + 2 * i], s[4 * g + 2 * i + 1]));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
      const float base = top == minus_infinity() ? 0.0f : top * scale_log2;  // a row that sees nothing yet: weights 0
      shrink[i] = exp2_fast(fmaf(m[i], scale_log2, -base));
      m[i] = top;
      float sum = l[i] * shrink[i];
#pragma unroll
      for (int g = 0; g < N / 4; ++g) {
        float& a = s[4 * g + 2 * i];
        float& b = s[4 * g + 2 * i + 1];
        a = exp2_fast(fmaf(a, scale_log2, -base));
        b = exp2_fast(fmaf(b, scale_log2, -base));
        sum += a + b;
      }
      l[i] = sum;
    }
  }

  // The sum of the row from its four threads.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      l[i] += __shfl_xor_sync(kAllLanes, l[i], 1);
      l[i] += __shfl_xor_sync(kAllLanes, l[i], 2);
    }
  }
};

}  // namespace lacuna::kernel::cuda::sm90a
