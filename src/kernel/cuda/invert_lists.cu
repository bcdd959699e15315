// SPDX-License-Identifier: Apache-2.0
// The inverse of block lists, by counting. The blocks of queries of a list are cut into parts: how often each part
// names each block of keys is counted, sums of the counts say where its entries go, and each part writes them.
// A row of a list names a block at most once, so a part that takes its rows one by one needs no atomic to write, and
// entries come in the order of their rows.
#include <cuda_runtime.h>

#include "kernel/cuda/prefill_grad.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kThreads = 256;

struct Lists {
  BlockLists l;
  InverseLists to;
  int blocks, columns;  // of queries, of keys

  // The rows of part blockIdx.x of list blockIdx.y, and its counts.
  __device__ int first() const { return static_cast<int>(std::int64_t{blocks} * blockIdx.x / kInverseParts); }
  __device__ int end() const { return static_cast<int>(std::int64_t{blocks} * (blockIdx.x + 1) / kInverseParts); }
  __device__ const std::int32_t* row(int r) const { return l.row_ptr + std::int64_t{blockIdx.y} * (blocks + 1) + r; }
  __device__ std::int32_t* counts(std::int64_t part) const {
    return to.counts + (blockIdx.y * std::int64_t{kInverseParts} + part) * columns;
  }
};

__global__ void count(const Lists x) {
  std::int32_t* counts = x.counts(blockIdx.x);
  for (int c = static_cast<int>(threadIdx.x); c < x.columns; c += kThreads) counts[c] = 0;
  __syncthreads();
  const int last = *x.row(x.end());
  for (int e = *x.row(x.first()) + static_cast<int>(threadIdx.x); e < last; e += kThreads)
    atomicAdd(counts + x.l.columns[e], 1);
}

// Counts become places: those of a column in the order of parts, columns one after the other.
__global__ void place(const Lists x) {
  __shared__ int sums[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  std::int32_t* row_ptr = x.to.row_ptr + std::int64_t{blockIdx.y} * (x.columns + 1);
  int before = *x.row(0);
  for (int first = 0; first < x.columns; first += kThreads) {
    const int c = first + thread;
    int mine = 0;
    for (int part = 0; part < kInverseParts && c < x.columns; ++part) mine += x.counts(part)[c];
    sums[thread] = mine;
    __syncthreads();
    for (int step = 1; step < kThreads; step *= 2) {
      const int more = thread >= step ? sums[thread - step] : 0;
      __syncthreads();
      sums[thread] += more;
      __syncthreads();
    }
    if (c < x.columns) {
      int at = before + sums[thread] - mine;
      row_ptr[c] = at;
      for (int part = 0; part < kInverseParts; ++part) {
        const int n = x.counts(part)[c];
        x.counts(part)[c] = at;
        at += n;
      }
    }
    before += sums[kThreads - 1];
    __syncthreads();
  }
  if (thread == 0) row_ptr[x.columns] = before;
}

__global__ void fill(const Lists x) {
  std::int32_t* places = x.counts(blockIdx.x);
  for (int r = x.first(); r < x.end(); ++r) {
    const int last = *x.row(r + 1);
    for (int e = *x.row(r) + static_cast<int>(threadIdx.x); e < last; e += kThreads) {
      const int at = places[x.l.columns[e]]++;
      x.to.rows[at] = r;
      if (x.to.bits) x.to.bits[at] = x.l.bits[e];
    }
    __syncthreads();
  }
}

}  // namespace

const char* invert_lists(const Prefill& a, const InverseLists& to, void* stream) {
  const BlockLists& l = a.lists;
  if (!l.row_ptr || a.nq < 1 || a.nk < 1) return nullptr;
  const Lists x{l, to, (a.nq + l.block_q - 1) / l.block_q, (a.nk + l.block_k - 1) / l.block_k};
  const auto lists = static_cast<unsigned>(l.batches * l.heads);
  const auto on = static_cast<cudaStream_t>(stream);
  count<<<dim3(kInverseParts, lists), kThreads, 0, on>>>(x);
  place<<<dim3(1, lists), kThreads, 0, on>>>(x);
  fill<<<dim3(kInverseParts, lists), kThreads, 0, on>>>(x);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda
