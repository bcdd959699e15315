// SPDX-License-Identifier: Apache-2.0
// MInference's vertical-slash choice as launches. Keys are taken 256 at a time with the 64 last rows, twice, so that scores
// never lie in memory: first each row's largest score and sum of weights in every chunk, then, these put together, the
// sums along columns and diagonals. Then a thread block for each kind of line of a head finds the least sum that is kept, by
// bisection, and thread blocks of a few row blocks mark the blocks that lines touch.
#include "kernel/cuda/estimate/minference.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/estimate/kept_lists.h"
#include "kernel/cuda/math.cuh"
#include "kernel/cuda/sm80/ptx.cuh"

namespace lacuna::kernel::cuda {
namespace {

constexpr int kRows = 64, kKeys = 256, kThreads = 128, kStep = 32, kPitch = 40;  // channels of a step; of a row of them
constexpr int kDiagonals = kRows + kKeys - 1, kWeightPitch = kKeys + 1;
constexpr std::int32_t kMost = 1 << 24;

struct Lines {
  MInference a;
  std::int32_t chunks, words, row_blocks, key_blocks, block_words;
  bool all;
  float *largest, *sums;      // [heads][chunks][64]: in base 2; of weights relative to it
  float *diagonals, *lines;   // [heads][chunks][kDiagonals]; [heads][2][nk]
  std::uint32_t *kept, *bits; // [heads][2][words]; [heads][row_blocks][block_words]
  std::int32_t* counts;
};

// Sixteen-bit rows of 32 channels to shared memory, zeros beyond the end; 16 bytes at a time where they may be.
__device__ __forceinline__ void load(std::uint16_t* to, const std::uint16_t* from, std::int64_t row_stride, int rows, int there,
                                     int d, int dk, bool wide) {
  if (wide) {
    for (int i = static_cast<int>(threadIdx.x); i < rows * (kStep / 8); i += kThreads) {
      const int r = i / (kStep / 8), x = i % (kStep / 8) * 8;
      *reinterpret_cast<uint4*>(to + r * kPitch + x) =
          r < there && d + x < dk ? __ldg(reinterpret_cast<const uint4*>(from + r * row_stride + d + x)) : make_uint4(0, 0, 0, 0);
    }
    return;
  }
  for (int i = static_cast<int>(threadIdx.x); i < rows * kStep; i += kThreads) {
    const int r = i / kStep, x = i % kStep;
    to[r * kPitch + x] = r < there && d + x < dk ? from[r * row_stride + d + x] : std::uint16_t{0};
  }
}

// kSums: the second time round.
template <class T, bool kSums>
__global__ void __launch_bounds__(kThreads) last_rows(const Lines c) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto* queries = reinterpret_cast<std::uint16_t*>(memory);
  std::uint16_t* keys = queries + kRows * kPitch;
  auto* weights = reinterpret_cast<float*>(memory);  // later, in the same place
  __shared__ float row_largest[kRows], row_inverse[kRows];
  const MInference& a = c.a;
  const int chunk = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int batch = head / a.hq, kv_head = head % a.hq / (a.hq / a.hkv), first = chunk * kKeys, there = min(kKeys, a.nk - first);
  const auto* q = static_cast<const std::uint16_t*>(a.q.data) + batch * a.q.batch + head % a.hq * a.q.head + (a.nq - kRows) * a.q.row;
  const auto* k = static_cast<const std::uint16_t*>(a.k.data) + batch * a.k.batch + kv_head * a.k.head + first * a.k.row;
  const auto is_wide = [](const void* p, std::int64_t row) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && row % 8 == 0; };
  const bool wide_q = is_wide(q, a.q.row) && a.dk % 8 == 0, wide_k = is_wide(k, a.k.row) && a.dk % 8 == 0;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  if constexpr (kSums) {  // the softmax of a row, from all chunks: two threads a row
    const int row = static_cast<int>(threadIdx.x) / 2, part = static_cast<int>(threadIdx.x) % 2;
    const float *m = c.largest + std::int64_t{head} * c.chunks * kRows + row, *l = c.sums + std::int64_t{head} * c.chunks * kRows + row;
    float most = minus_infinity(), sum = 0;
#pragma unroll 8
    for (int i = part; i < c.chunks; i += 2) most = fmaxf(most, m[i * kRows]);
    most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
#pragma unroll 8
    for (int i = part; i < c.chunks; i += 2) {
      const float x = l[i * kRows] * exp2_fast(m[i * kRows] - most);
      sum += x == x ? x : 0.0f;
    }
    sum += __shfl_xor_sync(kAllLanes, sum, 1);
    if (part == 0) {
      row_largest[row] = most;
      row_inverse[row] = sum > 0 ? 1 / sum : 0.0f;
    }
  }
  float s[128] = {};
  for (int d = 0; d < a.dk; d += kStep) {
    __syncthreads();
    load(queries, q, a.q.row, kRows, kRows, d, a.dk, wide_q);
    load(keys, k, a.k.row, kKeys, there, d, a.dk, wide_k);
    __syncthreads();
#pragma unroll
    for (int half = 0; half < kStep / 16; ++half) {
      std::uint32_t x[4];
      sm80::load_matrices(x, sm80::shared_address(queries + (warp * 16 + lane % 16) * kPitch + half * 16 + lane / 16 * 8));
#pragma unroll
      for (int pair = 0; pair < 16; ++pair) {
        std::uint32_t y[4];
        sm80::load_matrices(y, sm80::shared_address(keys + (pair * 16 + lane / 16 * 8 + lane % 8) * kPitch + half * 16 + lane / 8 % 2 * 8));
        sm80::multiply<T>(s + 8 * pair, x, y[0], y[1]);
        sm80::multiply<T>(s + 8 * pair + 4, x, y[2], y[3]);
      }
    }
  }
  __syncthreads();
  const float scale_log2 = a.scale * 1.44269504f;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = warp * 16 + lane / 4 + 8 * i, end = min(there, a.nk - kRows + row + 1 - first) - 2 * (lane % 4);
    float m = minus_infinity();
#pragma unroll
    for (int g = 0; g < 32; ++g)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[4 * g + 2 * i + e];
        x = 8 * g + e < end && x == x ? x * scale_log2 : minus_infinity();
        m = fmaxf(m, x);
      }
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 1));
    m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, 2));
    if constexpr (kSums) m = row_largest[row];
    const float inverse = kSums ? row_inverse[row] : 1.0f;
    float sum = 0;
#pragma unroll
    for (int g = 0; g < 32; ++g)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float x = exp2_fast(s[4 * g + 2 * i + e] - m), p = x == x ? x * inverse : 0.0f;
        if constexpr (kSums)
          weights[row * kWeightPitch + 8 * g + 2 * (lane % 4) + e] = p;
        else
          sum += p;
      }
    if constexpr (!kSums) {
      sum += __shfl_xor_sync(kAllLanes, sum, 1);
      sum += __shfl_xor_sync(kAllLanes, sum, 2);
      if (lane % 4 == 0) {
        const std::int64_t at = (std::int64_t{head} * c.chunks + chunk) * kRows + row;
        c.largest[at] = m;
        c.sums[at] = sum;
      }
    }
  }
  if constexpr (kSums) {
    __syncthreads();
    float* vertical = c.lines + std::int64_t{head} * 2 * a.nk;
    for (int x = static_cast<int>(threadIdx.x); x < there; x += kThreads) {
      float sum = 0;
#pragma unroll 16
      for (int row = 0; row < kRows; ++row) sum += weights[row * kWeightPitch + x];
      vertical[first + x] = sum;
    }
    for (int t = static_cast<int>(threadIdx.x); t < kDiagonals; t += kThreads) {
      float sum = 0;  // of row - key = t - 255
      for (int row = max(0, t - (kKeys - 1)); row < min(kRows, t + 1); ++row) sum += weights[row * kWeightPitch + row - (t - (kKeys - 1))];
      c.diagonals[(std::int64_t{head} * c.chunks + chunk) * kDiagonals + t] = sum;
    }
  }
}

// slash[d], from the chunks whose diagonals have that distance.
__global__ void join_diagonals(const Lines c) {
  const int d = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), head = static_cast<int>(blockIdx.y);
  if (d >= c.a.nk) return;
  const int far = c.a.nk - kRows - d;  // the key of the first of the 64 rows
  float sum = 0;
  for (int chunk = max(0, far / kKeys - 1); chunk < c.chunks; ++chunk) {
    const int t = chunk * kKeys - far + kKeys - 1;  // row - key = t - 255 within the chunk: far = chunk * 256 + 255 - t
    if (t >= kDiagonals) break;
    if (t >= 0) sum += c.diagonals[(std::int64_t{head} * c.chunks + chunk) * kDiagonals + t];
  }
  c.lines[(std::int64_t{head} * 2 + 1) * c.a.nk + d] = sum;
}

constexpr int kMany = 1024;

__device__ __forceinline__ int total_of(int mine, int* of_warps) {
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) mine += __shfl_xor_sync(kAllLanes, mine, bit);
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = mine;
  __syncthreads();
  int sum = 0;
  for (int w = 0; w < kMany / 32; ++w) sum += of_warps[w];
  return sum;
}

__global__ void __launch_bounds__(kMany) choose_lines(const Lines c) {
  __shared__ int of_warps[kMany / 32];
  const int which = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y), n = c.a.nk;
  const int forced = min(n, which == 0 ? c.a.sink : c.a.window), take = min(n, which == 0 ? c.a.vertical : c.a.slash) - forced;
  const float* x = c.lines + (std::int64_t{head} * 2 + which) * n;
  std::uint32_t* kept = c.kept + (std::int64_t{head} * 2 + which) * c.words;
  const auto count = [&](std::uint32_t least) {  // of free lines whose bits are that or more
    int mine = 0;
    for (int i = forced + static_cast<int>(threadIdx.x); i < n; i += kMany) mine += __float_as_uint(x[i]) >= least;
    return total_of(mine, of_warps);
  };
  std::uint32_t lo = 0, hi = 0x7f800000u;  // from lo on there are `take` or more, from hi on fewer
  int ties = 0;
  if (take > 0) {
    while (hi - lo > 1) {
      const std::uint32_t middle = lo + (hi - lo) / 2;
      (count(middle) >= take ? lo : hi) = middle;
    }
    ties = take - count(hi);
  } else {
    lo = 0x7f800000u;
  }
  int met = 0;  // ties before this round's lines
  for (int first = 0; first < c.words * 32; first += kMany) {
    const int i = first + static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    const bool open = i >= forced && i < n;
    const std::uint32_t bits = open ? __float_as_uint(x[i]) : 0;
    const bool tie = open && bits == lo;
    const std::uint32_t all = __ballot_sync(kAllLanes, tie);
    __syncthreads();
    if (lane == 0) of_warps[warp] = __popc(all);
    __syncthreads();
    int before = met + __popc(all & ((1u << lane) - 1));
    for (int w = 0; w < kMany / 32; ++w) {
      if (w < warp) before += of_warps[w];
      met += of_warps[w];
    }
    const std::uint32_t word = __ballot_sync(kAllLanes, i < forced || (open && bits > lo) || (tie && before < ties));
    if (lane == 0 && i / 32 < c.words) kept[i / 32] = word;
  }
}

// Whether one of bits from .. to of a row of words is set; to < 32 times their number.
__device__ __forceinline__ bool any_bit(const std::uint32_t* words, int from, int to) {
  for (int w = from / 32; w <= to / 32; ++w) {
    std::uint32_t x = __ldg(words + w);
    if (w == from / 32) x &= ~0u << from % 32;
    if (w == to / 32) x &= ~0u >> (31 - to % 32);
    if (x) return true;
  }
  return false;
}

__global__ void __launch_bounds__(kThreads) mark_blocks(const Lines c) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int u = static_cast<int>(blockIdx.x) * (kThreads / 32) + warp, head = static_cast<int>(blockIdx.y), block = c.a.block;
  if (u >= c.row_blocks) return;
  const int own = c.a.nk - c.a.nq + u * block, last_own = min(own + block, c.a.nk) - 1, n = last_own / block + 1;
  const std::uint32_t *columns = c.kept + std::int64_t{head} * 2 * c.words, *distances = columns + c.words;
  const std::int64_t at = std::int64_t{head} * c.row_blocks + u;
  int count = 0;
  for (int word = 0; word < c.block_words; ++word) {
    const int v = 32 * word + lane;
    bool kept = v < n && c.all;
    if (v < n && !c.all) {
      const int from = max(0, own - (v + 1) * block + 1), to = min(own + block - 1 - v * block, c.a.nk - 1);
      kept = any_bit(columns, v * block, min((v + 1) * block - 1, last_own)) || any_bit(distances, from, to);
    }
    const std::uint32_t bits = __ballot_sync(kAllLanes, kept);
    count += __popc(bits);
    if (lane == 0) c.bits[at * c.block_words + word] = bits;
  }
  if (lane == 0) c.counts[at] = count;
}

std::int32_t blocks(std::int32_t n, std::int32_t block) { return (n + block - 1) / block; }
bool empty(const MInference& a) { return a.batch == 0 || a.nq == 0; }
std::int64_t up(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// Places in the room; how much it is.
std::int64_t lay_out(Lines& c) {
  const MInference& a = c.a;
  c.chunks = blocks(a.nk, kKeys);
  c.words = blocks(a.nk, 32);
  c.row_blocks = blocks(a.nq, a.block);
  c.key_blocks = blocks(a.nk, a.block);
  c.block_words = blocks(c.key_blocks, 32);
  c.all = a.nq < 4 * kRows || a.nk <= 128 || a.slash >= a.nk;
  const std::int64_t heads = std::int64_t{a.batch} * a.hq;
  std::int64_t bytes = 0;
  const auto take = [&](auto*& place, std::int64_t n) {
    place = reinterpret_cast<std::remove_reference_t<decltype(place)>>(static_cast<char*>(a.room) + bytes);
    bytes += up(4 * n);
  };
  take(c.largest, heads * c.chunks * kRows);
  take(c.sums, heads * c.chunks * kRows);
  take(c.diagonals, heads * c.chunks * kDiagonals);
  take(c.lines, heads * 2 * a.nk);
  take(c.kept, heads * 2 * c.words);
  take(c.bits, heads * c.row_blocks * c.block_words);
  take(c.counts, heads * c.row_blocks);
  if (a.lines) c.lines = a.lines;
  return bytes;
}

template <class T>
cudaError_t start(const Lines& c, cudaStream_t stream) {
  const int loads = (kRows + kKeys) * kPitch * 2, weights = kRows * kWeightPitch * 4;
  const dim3 grid(static_cast<unsigned>(c.chunks), static_cast<unsigned>(c.a.batch * c.a.hq));
  const cudaError_t error =
      cudaFuncSetAttribute(last_rows<T, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, std::max(loads, weights));
  if (error != cudaSuccess) return error;
  last_rows<T, false><<<grid, kThreads, static_cast<std::size_t>(loads), stream>>>(c);
  last_rows<T, true><<<grid, kThreads, static_cast<std::size_t>(std::max(loads, weights)), stream>>>(c);
  join_diagonals<<<dim3(static_cast<unsigned>(blocks(c.a.nk, 256)), grid.y), 256, 0, stream>>>(c);
  choose_lines<<<dim3(2, grid.y), kMany, 0, stream>>>(c);
  return cudaGetLastError();
}

}  // namespace

std::int64_t minference_entries(const MInference& a) {
  std::int64_t n = 0;
  for (std::int32_t u = 0; u < blocks(a.nq, a.block); ++u)
    n += (a.nk - a.nq + std::min((u + 1) * a.block, a.nq) - 1) / a.block + 1;
  return n * a.batch * a.hq;
}

std::int64_t minference_room(const MInference& a) {
  Lines c{};
  c.a = a;
  return empty(a) ? 0 : lay_out(c);
}

const char* minference_why_not(const MInference& a) {
  if (a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) return "q and k must be bf16 or f16";
  if (a.batch < 0 || a.nq < 0 || a.nk < 0 || a.nq > kMost || a.nk > kMost)
    return "batch, rows and keys must be 0 to 2^24";
  if (a.nq > a.nk) return "more rows than keys: the last row is the last key's, so the first would be before all keys";
  if (a.hq < 1 || a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (std::int64_t{a.batch} * a.hq > 65535) return "more than 65535 query heads in the batch";
  if (a.dk < 8 || a.dk > 256 || a.dk % 8 != 0) return "head_dim must be a multiple of 8 from 8 to 256";
  if (!(a.scale > 0) || !std::isfinite(a.scale)) return "scale must be positive and finite";
  if (a.block != 64 && a.block != 128) return "block must be 64 or 128";
  if (a.vertical < 1 || a.slash < 1) return "vertical and slash must be 1 or more";
  if (a.sink < 0 || a.window < 1) return "sink must be 0 or more, window 1 or more";
  if (empty(a)) return nullptr;
  if (!a.q.data || !a.k.data) return "q or k is null";
  if (!a.row_ptr || !a.columns) return "row_ptr or columns is null";
  if (!a.room) return "room is null";
  if (reinterpret_cast<std::uintptr_t>(a.room) % 256 != 0) return "room must be 256-byte aligned";
  if (minference_entries(a) > INT32_MAX) return "more than 2^31 blocks at or below the diagonal";
  if (capability() < 80) return "the GPU is older than compute capability 8.0, or there is none";
  return nullptr;
}

const char* minference(const MInference& a, void* stream) {
  if (empty(a)) return nullptr;
  Lines c{};
  c.a = a;
  lay_out(c);
  const auto on = static_cast<cudaStream_t>(stream);
  cudaError_t error = cudaSuccess;
  if (!c.all) error = a.dtype == Dtype::bf16 ? start<__nv_bfloat16>(c, on) : start<__half>(c, on);
  if (error == cudaSuccess) {
    mark_blocks<<<dim3(static_cast<unsigned>(blocks(c.row_blocks, kThreads / 32)), static_cast<unsigned>(a.batch * a.hq)), kThreads, 0, on>>>(c);
    error = cudaGetLastError();
  }
  if (error != cudaSuccess) return cudaGetErrorString(error);
  return write_lists({.lists = a.batch * a.hq, .rows = c.row_blocks, .words = c.block_words, .bits = c.bits, .counts = c.counts,
                      .row_ptr = a.row_ptr, .columns = a.columns}, stream);
}

BlockLists lists_of(const MInference& a) {
  BlockLists l;
  l.block_q = l.block_k = a.block;
  l.batches = a.batch;
  l.heads = a.hq;
  l.n_entries = static_cast<std::int32_t>(minference_entries(a));
  l.row_ptr = a.row_ptr;
  l.columns = a.columns;
  return l;
}

}  // namespace lacuna::kernel::cuda
