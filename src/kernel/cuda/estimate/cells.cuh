// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The end of a tile of the strided product: a warp's 16 rows of 256 scores become maxima and cells (strided.h).
// Scores lie as kernel/cuda/softmax.cuh says, so four threads share a row.
#pragma once

#include "kernel/cuda/estimate/strided.h"
#include "kernel/cuda/math.cuh"

namespace lacuna::kernel::cuda {

// Halves what four threads hold of a row: of 2 n sums a thread keeps the n of its side of `bit`, the other's added.
template <int kSums>
__device__ __forceinline__ void fold(float (&x)[kSums], int lane, int bit) {
  const bool upper = lane & bit;
#pragma unroll
  for (int i = 0; i < kSums / 2; ++i) {
    const float give = upper ? x[i] : x[i + kSums / 2], keep = upper ? x[i + kSums / 2] : x[i];
    x[i] = keep + __shfl_xor_sync(kAllLanes, give, bit);
  }
}
template <int kTo, int kFrom>
__device__ __forceinline__ void fold_to(const float (&from)[kFrom], float (&to)[kTo]) {
#pragma unroll
  for (int i = 0; i < kTo; ++i) to[i] = from[i];
}

template <int kCell>
struct Cells {
  static constexpr int kEach = kStridedColumns / kCell / 4;  // cells that a thread writes of a row, neighbours

  // sums[g]: of the thread's two columns in group g of 8; sum[]: its cells 4 lane % 4 ... of the row.
  static __device__ __forceinline__ void gather(const float (&sums)[32], float (&cells)[kEach], int lane) {
    if constexpr (kCell == 4) {
      // Threads 0 and 1 have the first cell of a group, 2 and 3 the second.
      float a[32], b[16];
      fold_to(sums, a);
      fold(a, lane, 1);  // groups 16 (lane & 1) + 0 .. 15
      fold_to(a, b);
      const bool second = lane & 2;
      float give[8], other[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        give[i] = second ? b[i] : b[i + 8];
        other[i] = __shfl_xor_sync(kAllLanes, give[i], 2);
        cells[2 * i] = second ? other[i] : b[i];
        cells[2 * i + 1] = second ? b[i + 8] : other[i];
      }
    } else {
      constexpr int kGroups = kCell / 8, kMine = 32 / kGroups;
      float a[kMine];
#pragma unroll
      for (int i = 0; i < kMine; ++i) {
        a[i] = 0;
#pragma unroll
        for (int g = 0; g < kGroups; ++g) a[i] += sums[kGroups * i + g];
      }
      fold(a, lane, 2);
      float b[kMine / 2];
      fold_to(a, b);
      fold(b, lane, 1);
      fold_to(b, cells);
    }
  }
  // The first cell of a thread.
  static __device__ __forceinline__ int first(int lane) {
    if constexpr (kCell == 4) return 32 * (lane & 1) + 16 * (lane >> 1 & 1);
    return kEach * (lane & 3);
  }
};

// `row`: the thread's first row within the tile; `visible`: columns that it sees of the tile, the other row 8 more, up
// to `there` columns; s is used up.
template <int kCell>
__device__ __forceinline__ void store_cells(float (&s)[128], float scale_log2, int row, int visible, int there, int lane,
                                            std::uint16_t* cells, float* maxima) {
  using C = Cells<kCell>;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int end = min(visible + 8 * i, there);
    if (__any_sync(kAllLanes, end < kStridedColumns)) {
      const int mine = end - 2 * (lane % 4);
#pragma unroll
      for (int g = 0; g < 32; ++g)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (8 * g + e >= mine) s[4 * g + 2 * i + e] = minus_infinity();
    }
    float m = minus_infinity();
#pragma unroll
    for (int g = 0; g < 32; ++g) m = fmaxf(m, fmaxf(s[4 * g + 2 * i], s[4 * g + 2 * i + 1]));
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 1));
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 2)) * scale_log2;
    const float less = m == minus_infinity() ? 0.0f : m;
    float sums[32], mine[C::kEach];
#pragma unroll
    for (int g = 0; g < 32; ++g)
      sums[g] = exp2_fast(fmaf(s[4 * g + 2 * i], scale_log2, -less)) +
                exp2_fast(fmaf(s[4 * g + 2 * i + 1], scale_log2, -less));
    C::gather(sums, mine, lane);
    if (lane % 4 == 0) maxima[row + 8 * i] = m;
    std::uint32_t* to = reinterpret_cast<std::uint32_t*>(cells + (row + 8 * i) * (kStridedColumns / kCell) + C::first(lane));
    std::uint32_t words[C::kEach / 2];
#pragma unroll
    for (int c = 0; c < C::kEach / 2; ++c) words[c] = pack<__half>(mine[2 * c], mine[2 * c + 1]);
    if constexpr (C::kEach == 4) {
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
    } else {
#pragma unroll
      for (int c = 0; c < C::kEach / 2; c += 4)
        *reinterpret_cast<uint4*>(to + c) = make_uint4(words[c], words[c + 1], words[c + 2], words[c + 3]);
    }
  }
}

}  // namespace lacuna::kernel::cuda
