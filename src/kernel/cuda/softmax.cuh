// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// A thread's share of an online softmax over scores as the tensor cores leave them.
//
// Of a sum of 16 x N a warp's thread t has rows t / 4 and t / 4 + 8, and of each group of 8 columns two neighbours,
// from 2 (t % 4) on. Register 4 g + 2 i + e is column 8 g + 2 (t % 4) + e of the thread's row i. Four threads share a
// row.
//
// Scores are kept unscaled; m is the largest of them, l the thread's own part of sum exp2((s - m) scale_log2).
#pragma once

#include "kernel/cuda/math.cuh"

namespace lacuna::kernel::cuda {

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

}  // namespace lacuna::kernel::cuda
