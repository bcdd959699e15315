// SPDX-License-Identifier: Apache-2.0
#include "copy.h"

#include <cstdint>

namespace lacuna::test {
namespace {

// Every thread has eight pieces of 16 bytes on their way at a time.
__global__ void copy(uint4* to, const uint4* from, std::int64_t n) {
  constexpr int kAtOnce = 8;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x * kAtOnce + threadIdx.x;
  uint4 x[kAtOnce];
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i)
    if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < n) x[i] = __ldcs(from + at);
#pragma unroll
  for (int i = 0; i < kAtOnce; ++i)
    if (const std::int64_t at = first + std::int64_t{i} * blockDim.x; at < n) __stcs(to + at, x[i]);
}

}  // namespace

void copy_by_kernel(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  const auto n = static_cast<std::int64_t>(bytes / 16);
  copy<<<static_cast<unsigned>((n + 256 * 8 - 1) / (256 * 8)), 256, 0, stream>>>(static_cast<uint4*>(to),
                                                                                 static_cast<const uint4*>(from), n);
}

}  // namespace lacuna::test
