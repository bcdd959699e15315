// SPDX-License-Identifier: Apache-2.0
// The plain kernel of estimate/strided.h, for any GPU from sm_80 on, any strides and head dimensions. A thread block
// makes a tile, a warp 16 rows of it; queries and keys of 16 channels at a time pass through shared memory.
#include <cuda_runtime.h>

#include <cstdint>

#include "kernel/cuda/estimate/cells.cuh"
#include "kernel/cuda/sm80/ptx.cuh"

namespace lacuna::kernel::cuda::sm80 {
namespace {

constexpr int kThreads = 256, kStep = 16, kPitch = 24;  // channels of a step; of a row in shared memory: no bank twice

struct Plain {
  Tensor4 q, k;
  StridedGrid grid;
  float scale_log2;
  std::int32_t nq, nk, dk, hkv, first_head;
  std::uint16_t* cells;
  float* maxima;
};

// Row r of `n` has channels d .. d + 15 of the tensor's row `first + r * stride`, zeros beyond its end.
__device__ __forceinline__ void load(std::uint16_t* to, const std::uint16_t* from, std::int64_t row_stride, int n,
                                     int first, int stride, int rows, int d, int dk) {
  for (int i = static_cast<int>(threadIdx.x); i < n * kStep; i += kThreads) {
    const int r = i / kStep, x = i % kStep, row = first + r * stride;
    to[r * kPitch + x] = row < rows && d + x < dk ? from[row * row_stride + d + x] : std::uint16_t{0};
  }
}

template <class T, int kCell>
__global__ void __launch_bounds__(kThreads) plain_tiles(const Plain c) {
  __shared__ __align__(16) std::uint16_t queries[kStridedRows * kPitch], keys[kStridedColumns * kPitch];
  const StridedTile t = c.grid.tile_at(blockIdx.x);
  const int kv_head = c.first_head + t.head / c.grid.group, batch = kv_head / c.hkv;
  const int head = c.first_head * c.grid.group + t.head - batch * c.grid.hq;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const auto* q = static_cast<const std::uint16_t*>(c.q.data) + batch * c.q.batch + head * c.q.head;
  const auto* k = static_cast<const std::uint16_t*>(c.k.data) + batch * c.k.batch + (kv_head - batch * c.hkv) * c.k.head;
  const int S = c.grid.stride;
  float s[128] = {};
  for (int square_row = 0; square_row < S; ++square_row)
    for (int d = 0; d < c.dk; d += kStep) {
      __syncthreads();
      load(queries, q, c.q.row, kStridedRows, c.grid.skip + t.row * kStridedRows * S + S - 1 - square_row, S, c.nq, d, c.dk);
      load(keys, k, c.k.row, kStridedColumns, t.column * kStridedColumns * S + square_row, S, c.nk, d, c.dk);
      __syncthreads();
      std::uint32_t a[4];
      load_matrices(a, shared_address(queries + (warp * 16 + lane % 16) * kPitch + lane / 16 * 8));
#pragma unroll
      for (int pair = 0; pair < 16; ++pair) {
        std::uint32_t b[4];  // both halves of the channels of 8 columns, and of the next 8
        load_matrices(b, shared_address(keys + (pair * 16 + lane / 16 * 8 + lane % 8) * kPitch + lane / 8 % 2 * 8));
        multiply<T>(s + 8 * pair, a, b[0], b[1]);
        multiply<T>(s + 8 * pair + 4, a, b[2], b[3]);
      }
    }
  const std::int64_t place = c.grid.place(t) * kStridedRows;
  const int row = warp * 16 + lane / 4, from = t.column * kStridedColumns;
  store_cells<kCell>(s, c.scale_log2, row, c.grid.first + t.row * kStridedRows + row + 1 - from, c.grid.columns - from, lane,
                     c.cells + place * (kStridedColumns / kCell), c.maxima + place);
}

template <class T>
void start(const Plain& c, unsigned tiles, cudaStream_t stream) {
  if (c.grid.cell == 4)
    plain_tiles<T, 4><<<tiles, kThreads, 0, stream>>>(c);
  else if (c.grid.cell == 8)
    plain_tiles<T, 8><<<tiles, kThreads, 0, stream>>>(c);
  else
    plain_tiles<T, 16><<<tiles, kThreads, 0, stream>>>(c);
}

}  // namespace

const char* strided(const StridedProduct& a, void* stream) {
  const Plain c{a.q, a.k, a.grid, a.scale_log2, a.nq, a.nk, a.dk, a.hkv, a.first_head, static_cast<std::uint16_t*>(a.cells), a.maxima};
  if (a.tiles() > INT32_MAX) return "more than 2^31 tiles";
  if (a.dtype == Dtype::bf16)
    start<__nv_bfloat16>(c, static_cast<unsigned>(a.tiles()), static_cast<cudaStream_t>(stream));
  else
    start<__half>(c, static_cast<unsigned>(a.tiles()), static_cast<cudaStream_t>(stream));
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda::sm80
