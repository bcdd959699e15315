// SPDX-License-Identifier: Apache-2.0
// One compiled form of the backward kernel as data, and the kernel. The build writes a file for every head dimension.
#pragma once

#include <cuda_runtime.h>

#include "kernel/cuda/sm90a/grad_consume.cuh"
#include "kernel/cuda/sm90a/grad_produce.cuh"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda::sm90a::grad {

struct Instance {
  Dtype dtype;
  Side side;
  std::int32_t dk, dv, teams, rows, threads, shared_bytes;
  const void* kernel;
};
struct Instances {
  const Instance* first;
  const Instance* last;
  const Instance* begin() const { return first; }
  const Instance* end() const { return last; }
};

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1) grad_tiles(const __grid_constant__ Call c) {
  extern __shared__ unsigned char memory[];
  const int warpgroup = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 128, 0);  // uniform, for ptxas too
  const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
  if (threadIdx.x == 0)
    for (int i = 0; i < S::kTeams; ++i) Team<S>::at(memory, i).control->init();
  __syncthreads();
  if (warpgroup == 0) {
    give_registers<S::kProducerRegisters>();
    if (warp < S::kTeams) produce<S>(c, Team<S>::at(memory, warp), warp, static_cast<int>(threadIdx.x) % 32);
  } else {
    take_registers<S::kConsumerRegisters>();
    const int group = warpgroup - 1, barrier = 3 + group;  // behind those of turns
    Consumer<S>(c, Team<S>::at(memory, group / S::kGroups), group % S::kGroups, barrier,
                static_cast<int>(threadIdx.x) % 128)
        .run();
  }
}

template <Dtype kDtype, Side kSide, class S>
Instance instance() {
  return {kDtype,      kSide,           S::kDk,
          S::kDv,      S::kTeams,       S::kRows,
          S::kThreads, S::kSharedBytes, reinterpret_cast<const void*>(grad_tiles<S>)};
}

template <int kDk, int kDv>
Instances instances() {
  static const Instance all[] = {
      instance<Dtype::bf16, Side::queries, Shape<__nv_bfloat16, Side::queries, kDk, kDv, 1>>(),
      instance<Dtype::bf16, Side::queries, Shape<__nv_bfloat16, Side::queries, kDk, kDv, 2>>(),
      instance<Dtype::bf16, Side::keys, Shape<__nv_bfloat16, Side::keys, kDk, kDv, 1>>(),
      instance<Dtype::bf16, Side::keys, Shape<__nv_bfloat16, Side::keys, kDk, kDv, 2>>(),
      instance<Dtype::f16, Side::queries, Shape<__half, Side::queries, kDk, kDv, 1>>(),
      instance<Dtype::f16, Side::queries, Shape<__half, Side::queries, kDk, kDv, 2>>(),
      instance<Dtype::f16, Side::keys, Shape<__half, Side::keys, kDk, kDv, 1>>(),
      instance<Dtype::f16, Side::keys, Shape<__half, Side::keys, kDk, kDv, 2>>(),
  };
  return {all, all + sizeof all / sizeof *all};
}

}  // namespace lacuna::kernel::cuda::sm90a::grad
