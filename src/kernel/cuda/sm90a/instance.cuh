// SPDX-License-Identifier: Apache-2.0
// One compiled form of the kernel as data, and the kernel. The build writes a file for every pair of head
// dimensions (CMakeLists.txt), so that no machine has to compile more than it asked for.
#pragma once

#include <cuda_runtime.h>

#include "kernel/cuda/sm90a/consume.cuh"
#include "kernel/cuda/sm90a/produce.cuh"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda::sm90a {

struct Instance {
  Dtype dtype;
  std::int32_t dk, dv, groups, rows, threads, shared_bytes, blocks_per_sm;
  const void* kernel;
};
struct Instances {
  const Instance* first;
  const Instance* last;
  const Instance* begin() const { return first; }
  const Instance* end() const { return last; }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocksPerSm) prefill_tiles(const __grid_constant__ Call c) {
  extern __shared__ unsigned char memory[];
  const Shared<S> shared = Shared<S>::at(memory);
  const int warpgroup = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, for ptxas too
  if (threadIdx.x == 0) shared.control->init();
  __syncthreads();
  if (warpgroup == 0) {
    if constexpr (S::kPassesRegisters) give_registers<S::kProducerRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    if (warp == 0) produce_queries_and_keys<S>(c, shared, lane);
    if (warp == 1) produce_values<S>(c, shared, lane);
  } else {
    if constexpr (S::kPassesRegisters) take_registers<S::kConsumerRegisters>();
    Consumer<S>(c, shared, warpgroup - 1, static_cast<int>(threadIdx.x) % 128).run();
  }
}

template <Dtype kDtype, class S>
Instance instance() {
  return {kDtype,          S::kDk,          S::kDv,
          S::kGroups,      S::kRows,        S::kThreads,
          S::kSharedBytes, S::kBlocksPerSm, reinterpret_cast<const void*>(prefill_tiles<S>)};
}

// The forms of a pair of head dimensions: two consumers for tiles of 128 rows, one for lists of 64 rows, and
// three where the softmax takes as long as the products and more of it must overlap.
template <int kDk, int kDv>
Instances instances() {
  static const Instance all[] = {
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, 2>>(),
      instance<Dtype::f16, Shape<__half, kDk, kDv, 2>>(),
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, 1>>(),
      instance<Dtype::f16, Shape<__half, kDk, kDv, 1>>(),
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, kDk <= 64 ? 3 : 2>>(),
      instance<Dtype::f16, Shape<__half, kDk, kDv, kDk <= 64 ? 3 : 2>>(),
  };
  return {all, all + sizeof all / sizeof *all};
}

}  // namespace lacuna::kernel::cuda::sm90a
