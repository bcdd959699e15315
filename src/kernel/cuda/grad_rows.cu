// SPDX-License-Identifier: Apache-2.0
// Half a warp has a row: bound by reading out and G once, 16 bytes at a time where they lie so.
#include "kernel/cuda/grad_rows.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

namespace lacuna::kernel::cuda {
namespace {

constexpr int kLanes = 16, kRows = 16;  // of a row, of a thread block

template <class T, int kPiece>
struct alignas(kPiece * sizeof(T)) Piece {
  T x[kPiece];
};

template <class T, int kPiece>
__global__ void fill_rows(const PrefillGrad a) {
  const Prefill& f = a.forward;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRows + threadIdx.x / kLanes;
  for (int at = static_cast<int>(blockIdx.y); at < f.batch * f.hq; at += static_cast<int>(gridDim.y)) {
    const std::int64_t of_call = static_cast<std::int64_t>(at) * f.nq + row;
    const float lse = row < f.nq ? f.lse[of_call] : -INFINITY;
    float sum = 0;
    if (lse != -INFINITY) {
      const int batch = at / f.hq, head = at % f.hq;
      const auto* out = static_cast<const T*>(f.out.data) + batch * f.out.batch + head * f.out.head + row * f.out.row;
      const auto* g =
          static_cast<const T*>(a.d_out.data) + batch * a.d_out.batch + head * a.d_out.head + row * a.d_out.row;
      for (int d = lane * kPiece; d < f.dv; d += kLanes * kPiece) {
        const auto x = *reinterpret_cast<const Piece<T, kPiece>*>(out + d),
                   y = *reinterpret_cast<const Piece<T, kPiece>*>(g + d);
#pragma unroll
        for (int i = 0; i < kPiece; ++i) sum += static_cast<float>(x.x[i]) * static_cast<float>(y.x[i]);
      }
    }
    for (int step = kLanes / 2; step; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane != 0) continue;
    float* to = a.rows + grad_row_at(at, row, f.nq);
    to[0] = lse == -INFINITY ? INFINITY : lse * 1.44269504f;
    to[64] = lse != -INFINITY && a.d_lse ? sum - a.d_lse[of_call] : sum;
  }
}

template <class T>
void start(const PrefillGrad& a, cudaStream_t stream) {
  const Prefill& f = a.forward;
  const dim3 grid(static_cast<unsigned>(grad_rows_of_head(f.nq) / kRows),
                  static_cast<unsigned>(std::min(f.batch * f.hq, 65535)));
  bool whole = f.dv % 8 == 0;
  for (const Tensor4* t : {&f.out, &a.d_out})
    whole = whole && reinterpret_cast<std::uintptr_t>(t->data) % 16 == 0 && (t->batch | t->head | t->row) % 8 == 0;
  if (whole)
    fill_rows<T, 8><<<grid, kRows * kLanes, 0, stream>>>(a);
  else
    fill_rows<T, 1><<<grid, kRows * kLanes, 0, stream>>>(a);
}

}  // namespace

const char* grad_rows(const PrefillGrad& a, void* stream) {
  const auto to = static_cast<cudaStream_t>(stream);
  if (a.forward.dtype == Dtype::bf16)
    start<__nv_bfloat16>(a, to);
  else
    start<__half>(a, to);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda
