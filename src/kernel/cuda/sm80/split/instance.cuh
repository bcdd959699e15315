// SPDX-License-Identifier: Apache-2.0
// One compiled form of the decode kernel as data, and the kernel. The build writes a file for every pair of head
// dimensions (kernel/cuda/CMakeLists.txt).
#pragma once

#include <cuda_runtime.h>

#include "kernel/cuda/sm80/split/merge.cuh"
#include "kernel/cuda/sm80/split/shape.h"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda::sm80::split {

struct Instance {
  Dtype dtype;
  std::int32_t dk, dv, rows, threads, shared_bytes;
  const void* kernel;
};
struct Instances {
  const Instance* first;
  const Instance* last;
  const Instance* begin() const { return first; }
  const Instance* end() const { return last; }
};

struct Known {
  DealMemory deal;
  std::int32_t last;
};

// The rows' queries, and zeros after the KV head's last row: a group of copies of its own.
template <class S>
__device__ __forceinline__ void load_queries(unsigned char* to, const Call& c, const Piece& p) {
  using T = typename S::Type;
  constexpr int kPieces = S::kDk / 8;
  const int rows = min(S::kRows, c.group * c.nq - p.row);
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * kPieces; i += S::kThreads) {
    const int row = i / kPieces, piece = i % kPieces, at = p.row + (row < rows ? row : 0);
    const T* from = static_cast<const T*>(c.q.data) + p.sequence * c.q.batch +
                    (p.kv_head * c.group + at / c.nq) * c.q.head + at % c.nq * c.q.row;
    copy_async(shared_address(to) + row * S::kPitchK + piece * 16, from + piece * 8, row < rows);
  }
  commit_copies();
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocksPerSm) decode_pieces(const __grid_constant__ Call c) {
  extern __shared__ __align__(16) unsigned char memory[];
  static_assert(sizeof(Known) <= S::kSpare);
  Known& known = *reinterpret_cast<Known*>(memory);
  unsigned char *q = memory + S::kSpare, *rings = q + S::kQBytes;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int team = warp / S::kTeam, in_team = warp % S::kTeam;

  const Share share = deal<S>(c, known.deal);
  for (int at = share.begin, list = share.list, before = share.before; at < share.end;) {
    const Piece p = piece_at<S>(c, share, at, list, before);
    if (p.end <= 0) break;
    load_queries<S>(q, c, p);  // before the first keys, or it would wait behind those of the whole GPU
    Team<S> worker(c, p, q, rings + team * S::kStages * S::kStageBytes, team, in_team, lane);
    worker.begin();
    wait_copies<S::kStages - 1>();
    __syncthreads();
    Sums<S> sums;
    worker.attend(sums);
    __syncthreads();
    const TeamSums<S> found(rings);
    found.write(sums, team, in_team, lane);
    __syncthreads();
    merge<S>(c, share, p, found, known.last);
    __syncthreads();
    at = p.first + S::kStart + p.end;
    if (at == before + p.span * c.items) {
      before = at;
      ++list;
    }
  }
}

template <Dtype kDtype, class S>
Instance instance() {
  return {
      kDtype, S::kDk, S::kDv, S::kRows, S::kThreads, S::kSharedBytes, reinterpret_cast<const void*>(decode_pieces<S>)};
}

// The forms of a pair of head dimensions: for 16, 32 and 64 query rows of a KV head.
template <int kDk, int kDv>
Instances instances() {
  static const Instance all[] = {
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, 1>>(), instance<Dtype::f16, Shape<__half, kDk, kDv, 1>>(),
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, 2>>(), instance<Dtype::f16, Shape<__half, kDk, kDv, 2>>(),
      instance<Dtype::bf16, Shape<__nv_bfloat16, kDk, kDv, 4>>(), instance<Dtype::f16, Shape<__half, kDk, kDv, 4>>(),
  };
  return {all, all + sizeof all / sizeof *all};
}

}  // namespace lacuna::kernel::cuda::sm80::split
