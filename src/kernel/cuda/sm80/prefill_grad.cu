// SPDX-License-Identifier: Apache-2.0
// The plain backward: a warp holds one query row (q, G), or one key (k, v), and walks the keys that the row sees, or
// the rows that see the key. Of 32 of them each lane has one and makes its p and ds; then each lane has its share of
// the channels (lane, lane + 32, ...) and adds the visible ones, one by one, in f32.
#include "kernel/cuda/sm80/prefill_grad.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernel/cuda/grad_rows.h"
#include "kernel/cuda/sm80/prefill.h"

namespace lacuna::kernel::cuda::sm80 {
namespace {

constexpr int kWarps = 4;  // rows or keys of a thread block
constexpr int kMaxDim = 256;
constexpr int kShare = kMaxDim / 32;
constexpr unsigned kAll = 0xffffffffu;

enum class Side { queries, keys };  // which a warp holds one of

template <class T>
__device__ T* row_at(const Tensor4& t, int batch, int head, int row) {
  return static_cast<T*>(t.data) + batch * t.batch + head * t.head + row * t.row;
}

template <class T>
__device__ float dot(const float* x, const T* y, int n) {
  float sum = 0;
  for (int d = 0; d < n; ++d) sum += x[d] * static_cast<float>(y[d]);
  return sum;
}

// A query row or a key: x and y are q and G, or k and v; sums[0] and [1] their gradients (of queries: dq alone).
template <class T, Side kSide>
struct Held {
  const PrefillGrad& a;
  const float *x, *y;
  int batch, head, at, lane;  // head: the query head
  float sums[2][kShare] = {};

  __device__ int kv_head() const { return head / (a.forward.hq / a.forward.hkv); }

  // 32 of the other side from `first` on: this lane's, if `seen`.
  __device__ void add(int first, bool seen) {
    const Prefill& f = a.forward;
    const bool keys = kSide == Side::keys;
    const int row = keys ? first + lane : at, key = keys ? at : first + lane;
    float p = 0, ds = 0;
    seen = seen && row < f.nq && key < f.nk && (!f.causal || key <= row + f.nk - f.nq);
    if (seen) {
      const float* r = a.rows + grad_row_at(std::int64_t{batch} * f.hq + head, row, f.nq);
      seen = r[0] != INFINITY;
      if (seen) {
        const T* to_x = keys ? row_at<T>(f.q, batch, head, row) : row_at<T>(f.k, batch, kv_head(), key);
        const T* to_y = keys ? row_at<T>(a.d_out, batch, head, row) : row_at<T>(f.v, batch, kv_head(), key);
        p = exp2f(dot(x, to_x, f.dk) * f.scale * 1.44269504f - r[0]);
        ds = p * (dot(y, to_y, f.dv) - r[64]);
      }
    }
    for (unsigned left = __ballot_sync(kAll, seen); left; left &= left - 1) {
      const int from = __ffs(static_cast<int>(left)) - 1;
      if (keys) {
        gather(sums[0], __shfl_sync(kAll, ds, from), row_at<T>(f.q, batch, head, first + from), f.dk);
        gather(sums[1], __shfl_sync(kAll, p, from), row_at<T>(a.d_out, batch, head, first + from), f.dv);
      } else {
        gather(sums[0], __shfl_sync(kAll, ds, from), row_at<T>(f.k, batch, kv_head(), first + from), f.dk);
      }
    }
  }
  __device__ void gather(float (&sum)[kShare], float weight, const T* from, int n) const {
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < n) sum[j] += weight * static_cast<float>(from[lane + 32 * j]);
  }

  // All of the other side that the lists of the head, or no lists, show.
  __device__ void walk() {
    const Prefill& f = a.forward;
    const BlockLists& l = f.lists;
    const bool keys = kSide == Side::keys;
    if (!l.row_ptr) {
      const int begin = keys && f.causal ? max(0, at - f.nk + f.nq) : 0;
      const int end = keys ? f.nq : f.causal ? min(f.nk, at + f.nk - f.nq + 1) : f.nk;
      for (int first = begin; first < end; first += 32) add(first, true);
      return;
    }
    const int held = keys ? l.block_k : l.block_q, walked = keys ? l.block_q : l.block_k;
    const int blocks = ((keys ? f.nk : f.nq) + held - 1) / held;
    const std::int64_t list = (l.batches == 1 ? 0 : std::int64_t{batch} * l.heads) + head / (f.hq / l.heads);
    const std::int32_t* entries = (keys ? a.inverse.row_ptr : l.row_ptr) + list * (blocks + 1) + at / held;
    const std::int32_t *names = keys ? a.inverse.rows : l.columns, *bits = keys ? a.inverse.bits : l.bits;
    for (int e = entries[0]; e < entries[1]; ++e)
      for (int part = 0; part < walked; part += 32) {
        const int row = (keys ? part + lane : at) % l.block_q, key = (keys ? at : part + lane) % l.block_k;
        bool seen = true;
        if (bits && bits[e] >= 0)
          seen = l.words[(std::int64_t{bits[e]} * l.block_q + row) * (l.block_k / 32) + key / 32] >> key % 32 & 1u;
        add(names[e] * walked + part, seen);
      }
  }
  __device__ void put(const Tensor4& to, int to_head, const float (&sum)[kShare], float factor, int n) const {
    T* out = row_at<T>(to, batch, to_head, at);
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < n) out[lane + 32 * j] = static_cast<T>(sum[j] * factor);
  }
};

template <class T, Side kSide>
__global__ void grad(const PrefillGrad a) {
  __shared__ float channels[kWarps][2][kMaxDim];
  const Prefill& f = a.forward;
  const bool keys = kSide == Side::keys;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int at = static_cast<int>(blockIdx.x) * kWarps + warp, heads = keys ? f.hkv : f.hq;
  if (at >= (keys ? f.nk : f.nq)) return;  // the whole warp
  float *x = channels[warp][0], *y = channels[warp][1];
  for (int i = static_cast<int>(blockIdx.y); i < f.batch * heads; i += static_cast<int>(gridDim.y)) {
    const int batch = i / heads, head = i % heads, group = f.hq / f.hkv;
    const T* from_x = row_at<T>(keys ? f.k : f.q, batch, head, at);
    const T* from_y = row_at<T>(keys ? f.v : a.d_out, batch, head, at);
    for (int d = lane; d < f.dk; d += 32) x[d] = static_cast<float>(from_x[d]);
    for (int d = lane; d < f.dv; d += 32) y[d] = static_cast<float>(from_y[d]);
    __syncwarp();
    Held<T, kSide> held{a, x, y, batch, head, at, lane};
    if (keys) {
      for (held.head = head * group; held.head < (head + 1) * group; ++held.head) held.walk();
      held.put(a.d_k, head, held.sums[0], f.scale, f.dk);
      held.put(a.d_v, head, held.sums[1], 1, f.dv);
    } else {
      held.walk();
      held.put(a.d_q, head, held.sums[0], f.scale, f.dk);
    }
    __syncwarp();
  }
}

template <class T, Side kSide>
void start(const PrefillGrad& a, int n, int heads, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((n + kWarps - 1) / kWarps), static_cast<unsigned>(std::min(heads, 65535)));
  if (n > 0) grad<T, kSide><<<grid, kWarps * 32, 0, stream>>>(a);
}

template <class T>
const char* start_both(const PrefillGrad& a, cudaStream_t stream) {
  const Prefill& f = a.forward;
  if (a.d_q.data) start<T, Side::queries>(a, f.nq, f.batch * f.hq, stream);
  if (a.d_k.data) start<T, Side::keys>(a, f.nk, f.batch * f.hkv, stream);
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* prefill_grad_why_not(const PrefillGrad& a) { return sm80::prefill_why_not(a.forward); }

const char* prefill_grad(const PrefillGrad& a, void* stream) {
  const auto to = static_cast<cudaStream_t>(stream);
  return a.forward.dtype == Dtype::bf16 ? start_both<__nv_bfloat16>(a, to) : start_both<__half>(a, to);
}

}  // namespace lacuna::kernel::cuda::sm80
