// SPDX-License-Identifier: Apache-2.0
// A thread block adds up a block of vectors, its warps a quarter of them each. Products of sums are a small matrix
// product in f32, tiles of 64 x 64 through shared memory.
#include "kernel/cuda/estimate/pool.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel/cuda/math.cuh"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kMostDim = 256, kLane = kMostDim / 32;  // channels of a lane

__device__ __forceinline__ float number(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float number(__half x) { return __half2float(x); }

template <class T>
__global__ void __launch_bounds__(kThreads) pool_block(const Pool a, int pitch) {
  __shared__ float plain[kWarps][kMostDim], units[kWarps][kMostDim];
  __shared__ int counts[kWarps];
  __shared__ float squares[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x), head = static_cast<int>(blockIdx.y);
  const T* x = static_cast<const T*>(a.x.data) + head / a.heads * a.x.batch + head % a.heads * a.x.head;
  float less[kLane], sum[kLane] = {}, unit[kLane] = {};
#pragma unroll
  for (int c = 0; c < kLane; ++c) less[c] = a.less && lane + 32 * c < a.dim ? a.less[std::int64_t{head} * pitch + lane + 32 * c] : 0.0f;
  int count = 0;
  const int end = min((block + 1) * a.block, a.n);
#pragma unroll 4
  for (int i = block * a.block + warp; i < end; i += kWarps) {
    float v[kLane], square = 0;
#pragma unroll
    for (int c = 0; c < kLane; ++c) {
      v[c] = lane + 32 * c < a.dim ? number(x[i * a.x.row + lane + 32 * c]) : 0.0f;
      const float off = v[c] - less[c];
      square += off * off;
      sum[c] += v[c];
    }
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) square += __shfl_xor_sync(kAllLanes, square, bit);
    if (square == 0) continue;
    ++count;
    const float inverse = 1 / sqrtf(square);
#pragma unroll
    for (int c = 0; c < kLane; ++c) unit[c] += (v[c] - less[c]) * inverse;
  }
#pragma unroll
  for (int c = 0; c < kLane; ++c) {
    plain[warp][lane + 32 * c] = sum[c];
    units[warp][lane + 32 * c] = unit[c];
  }
  if (lane == 0) counts[warp] = count;
  __syncthreads();
  float square = 0;
  const std::int64_t at = std::int64_t{head} * blocks + block;
  for (int d = static_cast<int>(threadIdx.x); d < pitch; d += kThreads) {
    float p = 0, u = 0;
    for (int w = 0; w < kWarps; ++w) {
      p += plain[w][d];
      u += units[w][d];
    }
    if (a.sum) a.sum[at * pitch + d] = p;
    square += u * u;
  }
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) square += __shfl_xor_sync(kAllLanes, square, bit);
  if (lane == 0) squares[warp] = square;
  __syncthreads();
  if (!a.alike || threadIdx.x != 0) return;
  float all = 0;
  int n = 0;
  for (int w = 0; w < kWarps; ++w) {
    all += squares[w];
    n += counts[w];
  }
  a.alike[at] = n == 0 ? 1.0f : all / (static_cast<float>(n) * static_cast<float>(n));
}

__global__ void mean_of(const Pool a, int pitch, int blocks, float* mean) {
  const int head = static_cast<int>(blockIdx.x);
  for (int d = static_cast<int>(threadIdx.x); d < pitch; d += static_cast<int>(blockDim.x)) {
    double sum = 0;
#pragma unroll 8
    for (int b = 0; b < blocks; ++b) sum += a.sum[(std::int64_t{head} * blocks + b) * pitch + d];
    mean[std::int64_t{head} * pitch + d] = static_cast<float>(sum / a.n);
  }
}

constexpr int kTile = 64, kStep = 32;

__global__ void __launch_bounds__(256) multiply_sums(const PooledProduct a) {
  __shared__ float q[kStep][kTile + 1], k[kStep][kTile + 1];
  const int u0 = static_cast<int>(blockIdx.y) * kTile, b0 = static_cast<int>(blockIdx.x) * kTile, head = static_cast<int>(blockIdx.z);
  const std::int64_t last_own = a.first_key + std::int64_t{u0 + kTile} * a.row_block - 1;  // of the tile's rows
  if (std::int64_t{b0} * a.block > last_own) return;
  const int x = static_cast<int>(threadIdx.x) % 16, y = static_cast<int>(threadIdx.x) / 16;
  const float* from_q = a.q + std::int64_t{head} * a.rows * a.pitch;
  const float* from_k = a.k + std::int64_t{head / a.group} * a.columns * a.pitch;
  float sum[4][4] = {};
  for (int d = 0; d < a.pitch; d += kStep) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kStep; i += 256) {
      const int r = i / kStep, c = i % kStep;
      q[c][r] = u0 + r < a.rows ? from_q[std::int64_t{u0 + r} * a.pitch + d + c] : 0.0f;
      k[c][r] = b0 + r < a.columns ? from_k[std::int64_t{b0 + r} * a.pitch + d + c] : 0.0f;
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < kStep; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] += q[c][y + 16 * i] * k[c][x + 16 * j];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (u0 + y + 16 * i < a.rows && b0 + x + 16 * j < a.columns)
        a.score[(std::int64_t{head} * a.rows + u0 + y + 16 * i) * a.columns + b0 + x + 16 * j] = sum[i][j];
}

const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* pool(const Pool& a, void* stream) {
  const dim3 grid(static_cast<unsigned>(a.blocks()), static_cast<unsigned>(a.batch * a.heads));
  if (a.dtype == Dtype::bf16)
    pool_block<__nv_bfloat16><<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, pooled_pitch(a.dim));
  else
    pool_block<__half><<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, pooled_pitch(a.dim));
  return last_error();
}

const char* pool_mean(const Pool& a, float* mean, void* stream) {
  mean_of<<<static_cast<unsigned>(a.batch * a.heads), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, pooled_pitch(a.dim), a.blocks(), mean);
  return last_error();
}

const char* pooled_product(const PooledProduct& a, void* stream) {
  const dim3 grid(static_cast<unsigned>((a.columns + kTile - 1) / kTile), static_cast<unsigned>((a.rows + kTile - 1) / kTile),
                  static_cast<unsigned>(a.heads));
  multiply_sums<<<grid, 256, 0, static_cast<cudaStream_t>(stream)>>>(a);
  return last_error();
}

}  // namespace lacuna::kernel::cuda
