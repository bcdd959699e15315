// SPDX-License-Identifier: Apache-2.0
// One compiled form of the backward kernel as data, and the kernel. The build writes a file for every head dimension.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "kernel/cuda/sm90a/grad_consume.cuh"
#include "kernel/cuda/sm90a/grad_produce.cuh"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda::sm90a::grad {

struct Instance {
  Dtype dtype;
  Side side;
  std::int32_t dk, dv, rows, teams, threads, shared_bytes;
  const void* kernel;
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
    if constexpr (S::kPassesRegisters) give_registers<S::kProducerRegisters>();
    if (warp < S::kTeams) produce<S>(c, Team<S>::at(memory, warp), warp, static_cast<int>(threadIdx.x) % 32);
  } else {
    if constexpr (S::kPassesRegisters) take_registers<S::kConsumerRegisters>();
    const int group = warpgroup - 1, barrier = 3 + group;  // behind those of turns
    Consumer<S>(c, Team<S>::at(memory, group / S::kGroups), group % S::kGroups, barrier,
                static_cast<int>(threadIdx.x) % 128)
        .run();
  }
}

template <Side kSide, Sums kSums, int kDk, int kDv, int kRows>
void add(std::vector<Instance>& to) {
  const auto one = [&](Dtype dtype, auto shape) {
    using S = decltype(shape);
    to.push_back({dtype, kSide, kDk, kDv, kRows, S::kTeams, S::kThreads, S::kSharedBytes,
                  reinterpret_cast<const void*>(grad_tiles<S>)});
  };
  one(Dtype::bf16, Shape<__nv_bfloat16, kSide, kSums, kDk, kDv, kRows>{});
  one(Dtype::f16, Shape<__half, kSide, kSums, kDk, kDv, kRows>{});
}
template <int kDk, int kDv, int kRows>
void add_sides(std::vector<Instance>& to) {
  add<Side::queries, Sums::x, kDk, kDv, kRows>(to);
  if constexpr (kDk <= 128) {
    add<Side::keys, Sums::both, kDk, kDv, kRows>(to);
  } else {
    add<Side::keys, Sums::x, kDk, kDv, kRows>(to);
    add<Side::keys, Sums::y, kDk, kDv, kRows>(to);
  }
}

// The forms of a pair of head dimensions. All that agree in type, side and rows together make a pass.
template <int kDk, int kDv>
const std::vector<Instance>& instances() {
  static const std::vector<Instance> all = [] {
    std::vector<Instance> to;
    if constexpr (kDk <= 192) add_sides<kDk, kDv, 128>(to);
    add_sides<kDk, kDv, 64>(to);
    return to;
  }();
  return all;
}

}  // namespace lacuna::kernel::cuda::sm90a::grad
