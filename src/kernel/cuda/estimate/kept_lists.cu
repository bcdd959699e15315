// SPDX-License-Identifier: Apache-2.0
// A thread block makes a list: it adds up the counts of all lists before, so that none waits for another, sums its own
// row by row, and its warps write a row's columns each.
#include "kernel/cuda/estimate/kept_lists.h"

#include <cuda_runtime.h>

#include "kernel/cuda/math.cuh"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;

// Of the block: each thread's sum with all before it, and the sum of all.
__device__ int sum_before_and(int mine, int* of_warps, int& all) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int sum = mine;
  for (int step = 1; step < 32; step *= 2) {
    const int more = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += more;
  }
  __syncthreads();
  if (lane == 31) of_warps[warp] = sum;
  __syncthreads();
  int before = 0;
  all = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += of_warps[w];
    all += of_warps[w];
  }
  return before + sum;
}

__global__ void __launch_bounds__(kThreads) write(const KeptLists x) {
  __shared__ int of_warps[kWarps];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const std::int64_t first = std::int64_t{blockIdx.x} * x.rows;
  int before = 0, all = 0;
  for (std::int64_t i = thread; i < first; i += kThreads) before += x.counts[i];
  sum_before_and(before, of_warps, all);
  int at = all;
  std::int32_t* row_ptr = x.row_ptr + std::int64_t{blockIdx.x} * (x.rows + 1);
  if (thread == 0) row_ptr[0] = at;
  for (int row = 0; row < x.rows; row += kThreads) {
    const bool there = row + thread < x.rows;
    const int sum = sum_before_and(there ? x.counts[first + row + thread] : 0, of_warps, all);
    if (there) row_ptr[row + thread + 1] = at + sum;
    at += all;
  }
  __syncthreads();
  for (int row = warp; row < x.rows; row += kWarps) {
    const std::uint32_t* bits = x.bits + (first + row) * x.words;
    int to = row_ptr[row + 1] - x.counts[first + row];
    for (int word = lane; word < (x.words + 31) / 32 * 32; word += 32) {
      std::uint32_t left = word < x.words ? bits[word] : 0;
      const int n = __popc(left);
      int sum = n;
      for (int step = 1; step < 32; step *= 2) {
        const int more = __shfl_up_sync(kAllLanes, sum, step);
        if (lane >= step) sum += more;
      }
      int place = to + sum - n;
      for (; left; left &= left - 1) x.columns[place++] = 32 * word + __ffs(static_cast<int>(left)) - 1;
      to += __shfl_sync(kAllLanes, sum, 31);
    }
  }
}

}  // namespace

const char* write_lists(const KeptLists& a, void* stream) {
  if (a.lists < 1) return nullptr;
  write<<<static_cast<unsigned>(a.lists), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda
