// SPDX-License-Identifier: Apache-2.0
// The plain prefill: a warp has one query row of one head. Of 32 keys each lane scores one, then each lane has its
// share of the channels of the output (lane, lane + 32, ...) and adds the visible keys, one by one, in f32.
#include "kernel/cuda/sm80/prefill.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel/cuda/capability.cuh"

namespace lacuna::kernel::cuda::sm80 {
namespace {

constexpr int kWarps = 4;  // rows of a thread block
constexpr int kMaxDim = 256;
constexpr int kShare = kMaxDim / 32;
constexpr unsigned kAll = 0xffffffffu;

__device__ float minus_infinity() { return __int_as_float(static_cast<int>(0xff800000u)); }
__device__ float warp_max(float x) {
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, step));
  return x;
}
__device__ float warp_sum(float x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

template <class T>
__device__ const T* row_at(const Tensor4& t, int batch, int head, int row) {
  return static_cast<const T*>(t.data) + batch * t.batch + head * t.head + row * t.row;
}

// The keys of one row. m and l are alike in all lanes, acc[j] is channel lane + 32 * j.
template <class T>
struct Row {
  const Prefill& a;
  const float* q;
  int batch, kv_head, lane, end;  // keys below end are visible, as far as the diagonal goes
  float m = minus_infinity(), l = 0, acc[kShare] = {};

  // 32 keys from `first` on, those whose bit is set.
  __device__ void add(int first, unsigned seen) {
    const int key = first + lane;
    float s = minus_infinity();
    if (key < end && seen >> lane & 1u) {
      const T* k = row_at<T>(a.k, batch, kv_head, key);
      s = 0;
      for (int d = 0; d < a.dk; ++d) s += q[d] * static_cast<float>(k[d]);
      s *= a.scale;
    }
    unsigned counted = __ballot_sync(kAll, s != minus_infinity());  // NaN counts: it spreads to the row
    if (!counted) return;
    const float top = fmaxf(m, warp_max(s));
    const float shrink = m == minus_infinity() ? 0.0f : expf(m - top);
    const float p = s == minus_infinity() ? 0.0f : expf(s - top);
    l = l * shrink + warp_sum(p);
    m = top;
    for (int j = 0; j < kShare; ++j) acc[j] *= shrink;
    for (; counted; counted &= counted - 1) {
      const int from = __ffs(static_cast<int>(counted)) - 1;
      const float weight = __shfl_sync(kAll, p, from);
      const T* v = row_at<T>(a.v, batch, kv_head, first + from);
      for (int j = 0; j < kShare; ++j)
        if (lane + 32 * j < a.dv) acc[j] += weight * static_cast<float>(v[lane + 32 * j]);
    }
  }
};

template <class T>
__global__ void prefill_rows(const Prefill a) {
  __shared__ float q_of_warp[kWarps][kMaxDim];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x) * kWarps + warp;
  if (row >= a.nq) return;  // the whole warp
  for (int at = static_cast<int>(blockIdx.y); at < a.batch * a.hq; at += static_cast<int>(gridDim.y)) {
    const int batch = at / a.hq, head = at % a.hq;
    float* q = q_of_warp[warp];
    const T* from = row_at<T>(a.q, batch, head, row);
    for (int d = lane; d < a.dk; d += 32) q[d] = static_cast<float>(from[d]);
    __syncwarp();
    Row<T> x{a, q, batch, head / (a.hq / a.hkv), lane, a.causal ? min(a.nk, row + a.nk - a.nq + 1) : a.nk};
    const BlockLists& l = a.lists;
    if (!l.row_ptr) {
      for (int first = 0; first < x.end; first += 32) x.add(first, kAll);
    } else {
      const int blocks = (a.nq + l.block_q - 1) / l.block_q;
      const std::int64_t list = (l.batches == 1 ? 0 : std::int64_t{batch} * l.heads) + head / (a.hq / l.heads);
      const std::int32_t* entries = l.row_ptr + list * (blocks + 1) + row / l.block_q;
      for (int e = entries[0]; e < entries[1]; ++e) {
        const int mask = l.bits ? l.bits[e] : -1, words = l.block_k / 32;
        for (int w = 0; w < words; ++w) {
          const std::int64_t word = (std::int64_t{mask} * l.block_q + row % l.block_q) * words + w;
          x.add(l.columns[e] * l.block_k + 32 * w, mask < 0 ? kAll : l.words[word]);
        }
      }
    }
    T* out = const_cast<T*>(row_at<T>(a.out, batch, head, row));
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < a.dv) out[lane + 32 * j] = static_cast<T>(x.l == 0 ? 0.0f : x.acc[j] / x.l);
    if (a.lse && lane == 0)
      a.lse[static_cast<std::int64_t>(at) * a.nq + row] = x.l == 0 ? minus_infinity() : x.m + logf(x.l);
    __syncwarp();
  }
}

template <class T>
const char* start(const Prefill& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((a.nq + kWarps - 1) / kWarps),
                  static_cast<unsigned>(min(a.batch * a.hq, 65535)));
  prefill_rows<T><<<grid, kWarps * 32, 0, stream>>>(a);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* prefill_why_not(const Prefill& a) {
  const int can = capability();
  if (can < 80) return can ? "the GPU is older than compute capability 8.0 (A100)" : "there is no CUDA device";
  if (a.dk < 1 || a.dk > kMaxDim || a.dv < 1 || a.dv > kMaxDim) return "head_dim must be 1 to 256";
  return nullptr;
}

const char* prefill(const Prefill& a, void* stream) {
  const auto to = static_cast<cudaStream_t>(stream);
  return a.dtype == Dtype::bf16 ? start<__nv_bfloat16>(a, to) : start<__half>(a, to);
}

}  // namespace lacuna::kernel::cuda::sm80
