// SPDX-License-Identifier: Apache-2.0
// What the rows of a warpgroup's scores do not see. Warp w of the group has rows 16 w to 16 w + 15 of the 64, a thread
// those that kernel/cuda/softmax.cuh says.
#pragma once

#include "kernel/cuda/sm90a/ptx.cuh"
#include "kernel/cuda/sm90a/work.cuh"
#include "kernel/cuda/softmax.cuh"

namespace lacuna::kernel::cuda::sm90a {

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

}  // namespace lacuna::kernel::cuda::sm90a
