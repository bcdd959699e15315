// SPDX-License-Identifier: Apache-2.0
// From what the tiles of the strided product left (strided.h) to the kept blocks of every row block, a thread block
// each: the softmax of its strided rows is put together, their masses are summed by key blocks in shared memory, and
// the budget chooses among these. Sums have one order, so the choice is the same every time.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel/cuda/estimate/choose.cuh"
#include "kernel/cuda/estimate/gather.h"

namespace lacuna::kernel::cuda {
namespace {

// No mass is NaN: what is none counts as nothing (estimate/xattention.h).
__device__ __forceinline__ float number(float x) { return x == x ? x : 0.0f; }

struct Eight {
  float x[8];
  __device__ __forceinline__ explicit Eight(const __half* from) {
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    const std::uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&pairs[i]));
      x[2 * i] = number(two.x);
      x[2 * i + 1] = number(two.y);
    }
  }
};

// Where the tiles of a strided row are.
struct Row {
  const __half* cells;  // of the first tile
  const float* maxima;
  std::int32_t tiles;
};
__device__ __forceinline__ Row row_of(const Gather& a, int head, int m) {
  const StridedGrid& g = a.grid;
  const std::int64_t place = g.place({head, m / kStridedRows, 0}), at = place * kStridedRows + m % kStridedRows;
  return {static_cast<const __half*>(a.cells) + at * g.cells(), a.maxima + at, g.tiles_of(m / kStridedRows)};
}

// A warp finds the row's weights: exp2(its maxima less the largest), over the sum of all.
__device__ __forceinline__ void weigh_row(const Gather& a, const Row& r, float* weights, int lane) {
  float m = minus_infinity();
  for (int t = lane; t < r.tiles; t += 32) m = fmaxf(m, r.maxima[std::int64_t{t} * kStridedRows]);
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, bit));
  for (int t = lane; t < r.tiles; t += 32) weights[t] = number(exp2_fast(r.maxima[std::int64_t{t} * kStridedRows] - m));
  __syncwarp();
  const int eights = a.grid.cells() / 8;
  float sum = 0;
  for (int i = lane; i < r.tiles * eights; i += 32) {
    const int t = i / eights;
    const Eight cells(r.cells + std::int64_t{t} * kStridedRows * a.grid.cells() + i % eights * 8);
    float of_these = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) of_these += cells.x[c];
    sum += of_these * weights[t];
  }
  sum = sum_of_warp(sum);
  const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
  for (int t = lane; t < r.tiles; t += 32) weights[t] *= inverse;
  __syncwarp();
}

// mass[b] for the blocks of the row block, from its strided rows [m0, m1).
__device__ __forceinline__ void sum_masses(const Gather& a, int head, int m0, int m1, int n, float* mass,
                                           float* weights, int tiles) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  for (int m = m0 + warp; m < m1; m += kChooseWarps)
    weigh_row(a, row_of(a, head, m), weights + (m - m0) * tiles, lane);
  for (int b = thread; b < n; b += kChooseThreads) mass[b] = 0;
  __syncthreads();
  const int eights = a.grid.cells() / 8, per_block = a.block / a.grid.stride / a.grid.cell;  // 1, 2, 4 or 8 cells
  for (int i = thread; i < tiles * eights; i += kChooseThreads) {
    const int t = i / eights, block = i * 8 / per_block;
    if (block >= n) break;
    float sum[8] = {};
    for (int m = m0; m < m1; ++m) {
      const Row r = row_of(a, head, m);
      if (t >= r.tiles) continue;
      const float weight = weights[(m - m0) * tiles + t];
      const Eight cells(r.cells + std::int64_t{t} * kStridedRows * a.grid.cells() + i % eights * 8);
#pragma unroll
      for (int c = 0; c < 8; ++c) sum[c] += cells.x[c] * weight;
    }
    float whole = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      whole += sum[c];
      if ((c + 1) % per_block != 0) continue;
      if (block + c / per_block < n) mass[block + c / per_block] = whole;
      whole = 0;
    }
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kChooseThreads) gather_rows(const Gather a) {
  extern __shared__ float memory[];
  __shared__ int flags[2 * kChooseWarps];
  const int u = static_cast<int>(gridDim.x - 1 - blockIdx.x), head = static_cast<int>(blockIdx.y);  // longest first
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t row = std::int64_t{u} * a.block, own = a.nk - a.nq + row;
  const std::int64_t last_own = a.nk - a.nq + min(row + a.block, std::int64_t{a.nq}) - 1;
  const int n = static_cast<int>(last_own / a.block) + 1;
  const std::int64_t list = std::int64_t{a.first_head} + head, at = list * a.row_blocks + u;
  float* mass = memory;
  Least least{0, n};
  int first = 0, last = n;
  if (!a.all) {
    const int m0 = a.first_strided_row(u), m1 = a.first_strided_row(u + 1);
    const int tiles = m1 > m0 ? a.grid.tiles_of((m1 - 1) / kStridedRows) : 0;
    sum_masses(a, head, m0, m1, n, mass, memory + (n + 31) / 32 * 32, tiles);
    first = static_cast<int>(min(std::int64_t{n}, (a.sink + a.block - 1) / a.block));
    const std::int64_t oldest = max(std::int64_t{0}, own - a.window + 1);
    last = max(first, static_cast<int>(oldest / a.block));
    float forced = 0, open = 0;  // of every warp the same
    for (int i = lane; i < n; i += 32) (i < first || i >= last ? forced : open) += mass[i];
    forced = sum_of_warp(forced);
    open = sum_of_warp(open);
    least = least_kept({mass, first, last, a.mass * (forced + open) - forced, false}, flags);
  }
  if (warp == 0) {
    const int count = write_kept(
        mass, n, a.words, least, [&](int i) { return a.all || i < first || i >= last; },
        [&](int i) { return !a.all && i >= first && i < last; }, a.bits + at * a.words, lane);
    if (lane == 0) a.counts[at] = count;
  }
  if (a.estimate && !a.all)
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kChooseThreads) a.estimate[at * a.key_blocks + i] = mass[i];
}

}  // namespace

std::int64_t gather_shared_bytes(const Gather& a) {
  if (a.all) return 0;
  const std::int64_t rows = a.block / a.grid.stride + 1, tiles = a.grid.tiles_of(a.grid.row_tiles() - 1);
  return 4 * ((a.key_blocks + 31) / 32 * 32 + rows * tiles);
}

const char* gather(const Gather& a, int heads, void* stream) {
  const auto bytes = static_cast<int>(gather_shared_bytes(a));
  cudaError_t error = cudaFuncSetAttribute(gather_rows, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) {
    gather_rows<<<dim3(static_cast<unsigned>(a.row_blocks), static_cast<unsigned>(heads)), kChooseThreads, static_cast<std::size_t>(bytes),
                  static_cast<cudaStream_t>(stream)>>>(a);
    error = cudaGetLastError();
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda
