// SPDX-License-Identifier: Apache-2.0
// Every number of a call's lists against its range, on the device. A thread block has the list of one block of
// queries; the columns it has met are bits in shared memory, a part of the keys at a time.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kThreads = 128, kPart = 32768;  // columns that the bits have room for

__device__ void raise(ListError* error, ListError to) {
  atomicMax(reinterpret_cast<unsigned*>(error), static_cast<unsigned>(to));
}

__global__ void check(const BlockLists l, int blocks, int columns, ListError* error) {
  __shared__ unsigned met[kPart / 32];
  const std::int64_t list = blockIdx.y;
  const std::int32_t* at = l.row_ptr + list * (blocks + 1) + blockIdx.x;
  const int begin = at[0], end = at[1];
  if (begin < 0 || end < begin || end > l.n_entries) {
    if (threadIdx.x == 0) raise(error, ListError::row_ptr);
    return;
  }
  for (int e = begin + static_cast<int>(threadIdx.x); e < end; e += kThreads) {
    if (l.columns[e] < 0 || l.columns[e] >= columns) raise(error, ListError::column);
    if (l.bits && l.bits[e] >= l.n_bits) raise(error, ListError::bits);
  }
  for (int part = 0; part < columns; part += kPart) {
    for (int i = static_cast<int>(threadIdx.x); i < kPart / 32; i += kThreads) met[i] = 0;
    __syncthreads();
    for (int e = begin + static_cast<int>(threadIdx.x); e < end; e += kThreads) {
      const int c = l.columns[e] - part;
      if (c < 0 || c >= kPart) continue;
      if (atomicOr(&met[c / 32], 1u << c % 32) >> c % 32 & 1u) raise(error, ListError::twice);
    }
    __syncthreads();
  }
}

}  // namespace

const char* check_lists(const Prefill& a, ListError* error, void* stream) {
  const BlockLists& l = a.lists;
  if (!l.row_ptr || a.nq < 1) return nullptr;
  const int blocks = (a.nq + l.block_q - 1) / l.block_q, columns = (a.nk + l.block_k - 1) / l.block_k;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(l.batches * l.heads));
  check<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(l, blocks, columns, error);
  const cudaError_t failed = cudaGetLastError();
  return failed == cudaSuccess ? nullptr : cudaGetErrorString(failed);
}

const char* words_of(ListError error) {
  switch (error) {
    case ListError::none:
      return "nothing";
    case ListError::row_ptr:
      return "row_ptr must rise from 0 or more to n_entries or less";
    case ListError::column:
      return "a column is outside 0 .. blocks of keys - 1";
    case ListError::twice:
      return "a list names a block twice";
    case ListError::bits:
      return "a partial block's bits are outside 0 .. n_bits - 1";
  }
  return "?";
}

}  // namespace lacuna::kernel::cuda
