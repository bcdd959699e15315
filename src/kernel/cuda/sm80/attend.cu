// SPDX-License-Identifier: Apache-2.0
// Op attend for any GPU from sm_80 on: the plain form that faster ones are measured against. It reads the
// raw K and V and rounds nothing: all arithmetic is f32.
//
// A warp has one query row of one head. It walks the row block's tiles; of a tile's 32 cells each lane
// scores one, then each lane has its share of the channels of the output (lane, lane + 32, ...) and adds
// the cells that are seen, one by one. A cell that is not seen is not read.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "kernel/cuda/attend.h"

namespace lacuna::kernel::cuda {
namespace {

using Args = op::Attend::Args;

constexpr int kWarps = 4;                  // rows of a thread block
constexpr int kMaxDim = 256;
constexpr int kShare = kMaxDim / 32;       // channels of a lane
constexpr unsigned kAll = 0xffffffffu;

struct F32 {
  using Type = float;
  static __device__ float load(const float* p) { return *p; }
};
struct F16 {
  using Type = unsigned short;
  static __device__ float load(const unsigned short* p) { return __half2float(__ushort_as_half(*p)); }
};
struct Bf16 {
  using Type = unsigned short;
  static __device__ float load(const unsigned short* p) { return __uint_as_float(static_cast<unsigned>(*p) << 16); }
};

__device__ float minus_infinity() { return __int_as_float(0xff800000); }

__device__ float warp_max(float x) {
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAll, x, step));
  return x;
}
__device__ float warp_sum(float x) {
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

// A row's softmax so far. m and l are alike in all lanes, acc[j] is channel lane + 32 * j.
struct Row {
  float m, l, acc[kShare];
  __device__ void rescale_to(float new_m) {
    const float shrink = m == minus_infinity() ? 0.0f : expf(m - new_m);
    l *= shrink;
    for (int j = 0; j < kShare; ++j) acc[j] *= shrink;
    m = new_m;
  }
};

template <class T>
__device__ float score(const Args& a, const float* q, const typename T::Type* k, int head, int row, long long cell) {
  float s = 0;
  for (int d = 0; d < a.dk; ++d) s += q[d] * T::load(k + d);
  s *= a.scale;
  if (a.softcap > 0) s = a.softcap * tanhf(s / a.softcap);
  if (a.bias) s += (a.slope ? a.slope[head] : 1.0f) * F16::load(a.bias + row * a.bias_row + cell);
  return s;
}

template <class T>
__global__ void attend_rows(const Args a) {
  __shared__ float q_of_warp[kWarps][kMaxDim];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int row = blockIdx.x * kWarps + warp, head = blockIdx.y;
  if (row >= a.n_rows) return;  // the whole warp
  const int kv_head = head / (a.hq / a.hkv);
  const long long at = static_cast<long long>(head) * a.n_rows + row;
  const auto* k = static_cast<const typename T::Type*>(a.k) + kv_head * a.k_head;
  const auto* v = static_cast<const typename T::Type*>(a.v) + kv_head * a.v_head;
  float* q = q_of_warp[warp];
  for (int d = lane; d < a.dk; d += 32) q[d] = a.q[head * a.q_head + row * a.q_row + d];
  __syncwarp();

  Row x{minus_infinity(), 0, {}};
  if (a.resume.m) {
    x.m = a.resume.m[at];
    x.l = a.resume.l[at];
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < a.dv) x.acc[j] = a.resume.acc[at * a.dv + lane + 32 * j];
  }

  const int block = row / a.runs.block_q, in_block = row % a.runs.block_q;
  const int n_blocks = (a.runs.n_rows + a.runs.block_q - 1) / a.runs.block_q;
  const int* list = a.runs.row_ptr + static_cast<long long>(a.runs.heads == 1 ? 0 : head) * (n_blocks + 1) + block;
  for (int r = list[0]; r < list[1]; ++r) {
    const TileRun run = a.runs.runs[r];
    const unsigned seen = run.bits < 0 ? kAll : a.runs.words[static_cast<long long>(run.bits) * a.runs.block_q + in_block];
    if (!seen) continue;
    for (int tile = run.begin; tile < run.end; ++tile) {
      const long long cell = static_cast<long long>(tile) * kTileKeys + lane;
      const float s = seen >> lane & 1u ? score<T>(a, q, k + cell * a.k_cell, head, row, cell) : minus_infinity();
      unsigned counted = __ballot_sync(kAll, s != minus_infinity());  // NaN counts: it spreads to the row
      if (!counted) continue;
      const float m = warp_max(s);  // fmaxf passes NaN over
      if (m > x.m) x.rescale_to(m);
      const float p = s == minus_infinity() ? 0.0f : expf(s - x.m);
      x.l += warp_sum(p);
      for (; counted; counted &= counted - 1) {
        const int from = __ffs(counted) - 1;
        const float weight = __shfl_sync(kAll, p, from);
        const auto* value = v + (static_cast<long long>(tile) * kTileKeys + from) * a.v_cell;
        for (int j = 0; j < kShare; ++j)
          if (lane + 32 * j < a.dv) x.acc[j] += weight * T::load(value + lane + 32 * j);
      }
    }
  }

  if (a.resume.m) {
    if (lane == 0) {
      a.resume.m[at] = x.m;
      a.resume.l[at] = x.l;
    }
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < a.dv) a.resume.acc[at * a.dv + lane + 32 * j] = x.acc[j];
    if (!a.normalise) return;
  }
  if (a.sinks && x.l > 0) {  // a row without cells stays empty: the sink alone carries no value
    if (a.sinks[head] > x.m) x.rescale_to(a.sinks[head]);
    x.l += expf(a.sinks[head] - x.m);
  }
  if (a.out)
    for (int j = 0; j < kShare; ++j)
      if (lane + 32 * j < a.dv)
        a.out[head * a.out_head + row * a.out_row + lane + 32 * j] = x.l == 0 ? 0.0f : x.acc[j] / x.l;
  if (a.lse && lane == 0) a.lse[at] = x.l == 0 ? minus_infinity() : x.m + logf(x.l);
}

template <class T>
void start(const Args& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((a.n_rows + kWarps - 1) / kWarps), static_cast<unsigned>(a.hq));
  attend_rows<T><<<grid, kWarps * 32, 0, stream>>>(a);
}

}  // namespace

const char* attend_why_not(const Args& a) {
  if (a.dk < 1 || a.dk > kMaxDim || a.dv < 1 || a.dv > kMaxDim) return "head_dim must be 1 to 256";
  if (a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (a.hq > 65535) return "more than 65535 query heads";
  if (a.pv_skip) return "tiles left out by their weight";
  if (a.k_type != a.v_type || is_quantised(a.k_type)) return "K and V must both be f32, f16 or bf16";
  return nullptr;
}

const char* attend(const Args& a, void* stream) {
  if (a.n_rows < 1 || a.hq < 1) return nullptr;
  const auto to = static_cast<cudaStream_t>(stream);
  switch (a.k_type) {
    case Dtype::f32: start<F32>(a, to); break;
    case Dtype::f16: start<F16>(a, to); break;
    case Dtype::bf16: start<Bf16>(a, to); break;
    case Dtype::q8_0:
    case Dtype::q4_0: break;  // refused above
  }
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda
