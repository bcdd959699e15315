// SPDX-License-Identifier: Apache-2.0
// Every number of a decode call's lengths, lists and table against its range, on the device. A thread block has the
// list of one sequence or KV head; the pages it has met are bits in shared memory, a part of the keys at a time.
#include <cuda_runtime.h>

#include "kernel/cuda/decode.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kThreads = 128, kPart = 32768;  // pages that the bits have room for

__device__ void raise(PageError* error, PageError to) {
  atomicMax(reinterpret_cast<unsigned*>(error), static_cast<unsigned>(to));
}

__device__ void check_list(const Decode& a, int list, int length, unsigned* met, PageError* error) {
  const PageLists& l = a.lists;
  const int count = l.counts[list], pages = (length + l.cells - 1) / l.cells;
  if (count < 0 || count > l.most) {
    if (threadIdx.x == 0) raise(error, PageError::count);
    return;
  }
  const std::int32_t* entries = l.pages + static_cast<std::int64_t>(list) * l.most;
  for (int e = static_cast<int>(threadIdx.x); e < count; e += kThreads)
    if (entries[e] < -1 || entries[e] >= pages) raise(error, PageError::page);
  for (int part = 0; part < pages; part += kPart) {
    for (int i = static_cast<int>(threadIdx.x); i < kPart / 32; i += kThreads) met[i] = 0;
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < count; e += kThreads) {
      const int page = entries[e] - part;
      if (entries[e] < 0 || page < 0 || page >= kPart) continue;
      if (atomicOr(&met[page / 32], 1u << page % 32) >> page % 32 & 1u) raise(error, PageError::twice);
    }
    __syncthreads();
  }
}

__global__ void check(const Decode a, PageError* error) {
  __shared__ unsigned met[kPart / 32];
  const int list = static_cast<int>(blockIdx.x), heads = a.lists.counts ? a.lists.heads : 1, sequence = list / heads;
  const int length = a.lengths ? a.lengths[sequence] : a.nk;
  if (length < 0 || length > a.nk) {
    if (threadIdx.x == 0) raise(error, PageError::length);
    return;
  }
  if (a.table.pages && list % heads == 0) {
    const int used = (length + a.table.cells - 1) / a.table.cells;
    const std::int32_t* pages = a.table.pages + static_cast<std::int64_t>(sequence) * a.table.most;
    for (int i = static_cast<int>(threadIdx.x); i < used; i += kThreads)
      if (pages[i] < 0 || pages[i] >= a.table.n_pages) raise(error, PageError::table);
  }
  if (a.lists.counts) check_list(a, list, length, met, error);
}

}  // namespace

const char* check_pages(const Decode& a, PageError* error, void* stream) {
  const int lists = a.batch * (a.lists.counts ? a.lists.heads : 1);
  if (lists < 1) return nullptr;
  check<<<static_cast<unsigned>(lists), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(a, error);
  const cudaError_t failed = cudaGetLastError();
  return failed == cudaSuccess ? nullptr : cudaGetErrorString(failed);
}

const char* words_of(PageError error) {
  switch (error) {
    case PageError::none:
      return "nothing";
    case PageError::length:
      return "a length is outside 0 .. nk";
    case PageError::count:
      return "a list's count is outside 0 .. most";
    case PageError::page:
      return "a list names a page outside 0 .. pages of the sequence - 1, and not -1";
    case PageError::twice:
      return "a list names a page twice";
    case PageError::table:
      return "the table names a page outside 0 .. n_pages - 1";
  }
  return "?";
}

}  // namespace lacuna::kernel::cuda
