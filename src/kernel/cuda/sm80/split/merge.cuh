// SPDX-License-Identifier: Apache-2.0
// What several saw of the same rows becomes one: the teams of a thread block through shared memory, then the pieces of
// an item through `work`, by the thread block that is done last. Always in the same order, so the bits are the same.
//
//   m = max_i m_i,  l = sum_i 2^(m_i - m) l_i,  o = sum_i 2^(m_i - m) o_i       m in units of scale_log2
#pragma once

#include "kernel/cuda/sm80/split/team.cuh"

namespace lacuna::kernel::cuda::sm80::split {

// Four channels of a row.
struct Part {
  float4 o;
  float m, l;
};

// `n` of them, read(0) to read(n - 1). kAtOnce are on their way together.
template <int kAtOnce, class Read>
__device__ __forceinline__ Part merged(int n, float scale_log2, Read read) {
  Part all{{0, 0, 0, 0}, minus_infinity(), 0};
  for (int first = 0; first < n; first += kAtOnce) {
    Part x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) x[i] = first + i < n ? read(first + i) : Part{{0, 0, 0, 0}, minus_infinity(), 0};
    float top = all.m;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) top = fmaxf(top, x[i].m);
    const float base = top == minus_infinity() ? 0.0f : top * scale_log2;  // seen nothing yet: weights 0
    const auto weight = [&](float m) { return exp2_fast(fmaf(m, scale_log2, -base)); };
    const float shrink = weight(all.m);
    all.m = top, all.l *= shrink;
    all.o.x *= shrink, all.o.y *= shrink, all.o.z *= shrink, all.o.w *= shrink;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const float w = weight(x[i].m);
      all.l += w * x[i].l;
      all.o.x += w * x[i].o.x, all.o.y += w * x[i].o.y, all.o.z += w * x[i].o.z, all.o.w += w * x[i].o.w;
    }
  }
  return all;
}

// The teams' sums in shared memory.
template <class S>
struct TeamSums {
  float *o, *m, *l;  // [team][row][kPitchSums], [team][row]
  __device__ __forceinline__ explicit TeamSums(unsigned char* memory)
      : o(reinterpret_cast<float*>(memory)), m(o + S::kTeams * S::kRows * S::kPitchSums), l(m + S::kTeams * S::kRows) {}

  __device__ __forceinline__ void write(const Sums<S>& x, int team, int warp, int lane) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = team * S::kRows + warp * 16 + lane / 4 + 8 * i;
      if (lane % 4 == 0) m[row] = x.soft.m[i], l[row] = x.soft.l[i];
#pragma unroll
      for (int g = 0; g < S::kDv / 8; ++g)
        *reinterpret_cast<float2*>(o + row * S::kPitchSums + 8 * g + lane % 4 * 2) =
            make_float2(x.o[4 * g + 2 * i], x.o[4 * g + 2 * i + 1]);
    }
  }
  __device__ __forceinline__ Part merge(float scale_log2, int row, int channel) const {
    return merged<S::kTeams>(S::kTeams, scale_log2, [&](int i) {
      const int at = i * S::kRows + row;
      return Part{*reinterpret_cast<const float4*>(o + at * S::kPitchSums + channel), m[at], l[at]};
    });
  }
};

// A slot of `work`; its readers are other thread blocks, so nothing of it may come from an L1 cache.
template <class S>
struct Slot {
  float *o, *stats;
  __device__ __forceinline__ Slot(const Call& c, std::int64_t slot)
      : o(c.sums + slot * S::kRows * S::kDv), stats(c.stats + slot * 2 * S::kRows) {}
  __device__ __forceinline__ void write(const Part& x, int row, int channel) const {
    *reinterpret_cast<float4*>(o + row * S::kDv + channel) = x.o;
    if (channel == 0) stats[row] = x.m, stats[S::kRows + row] = x.l;
  }
  __device__ __forceinline__ Part read(int row, int channel) const {
    return {__ldcg(reinterpret_cast<const float4*>(o + row * S::kDv + channel)), __ldcg(stats + row),
            __ldcg(stats + S::kRows + row)};
  }
};

// The final word on four channels of a row.
template <class S>
__device__ __forceinline__ void write_out(const Call& c, const Piece& p, const Part& x, int row, int channel) {
  using T = typename S::Type;
  const int at = p.row + row, head = p.kv_head * c.group + at / c.nq, token = at % c.nq;
  const float inverse = x.l == 0 ? 0.0f : 1.0f / x.l;
  T* out = static_cast<T*>(c.out.data) + p.sequence * c.out.batch + head * c.out.head + token * c.out.row + channel;
  *reinterpret_cast<uint2*>(out) =
      make_uint2(pack<T>(x.o.x * inverse, x.o.y * inverse), pack<T>(x.o.z * inverse, x.o.w * inverse));
  if (c.lse && channel == 0)
    c.lse[(static_cast<std::int64_t>(p.sequence) * c.hq + head) * c.nq + token] =
        x.l == 0 ? minus_infinity() : x.m * c.scale_log2 * 0.693147181f + logf(x.l);
}

// Whether this thread block is the last of the item's to come here; what all wrote before is then there to read.
__device__ __forceinline__ bool is_last(const Call& c, int item, int pieces, std::int32_t& memory) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const bool last = atomicAdd(c.tickets + item, 1u) + 1 == static_cast<unsigned>(pieces);
    if (last) c.tickets[item] = 0;  // for the next launch
    memory = last;
  }
  __syncthreads();
  __threadfence();
  return memory != 0;
}

// After all teams have written their sums of a piece.
template <class S>
__device__ __forceinline__ void merge(const Call& c, const Share& share, const Piece& p, const TeamSums<S>& teams,
                                      std::int32_t& memory) {
  constexpr int kPerRow = S::kDv / 4;  // threads
  const int works = min(S::kRows, c.group * c.nq - p.row) * kPerRow;
  const int first = share.owner(p.first + S::kStart), pieces = share.owner(p.first + p.span - 1) - first + 1;
  const Slot<S> mine(c, 2 * static_cast<std::int64_t>(blockIdx.x) + (p.begin == 0));
  for (int work = static_cast<int>(threadIdx.x); work < works; work += S::kThreads) {
    const int row = work / kPerRow, channel = work % kPerRow * 4;
    const Part x = teams.merge(c.scale_log2, row, channel);
    if (p.whole())
      write_out<S>(c, p, x, row, channel);
    else
      mine.write(x, row, channel);
  }
  if (p.whole() || !is_last(c, p.item, pieces, memory)) return;
  const auto slot = [&](int i) { return Slot<S>(c, 2 * static_cast<std::int64_t>(first + i) + (i == 0)); };
  for (int work = static_cast<int>(threadIdx.x); work < works; work += S::kThreads) {
    const int row = work / kPerRow, channel = work % kPerRow * 4;
    const Part x = merged<8>(pieces, c.scale_log2, [&](int i) { return slot(i).read(row, channel); });
    write_out<S>(c, p, x, row, channel);
  }
}

}  // namespace lacuna::kernel::cuda::sm80::split
