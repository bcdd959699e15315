// SPDX-License-Identifier: Apache-2.0
// SpargeAttn's choice as launches: blocks are pooled and compared (pool.cu), then a thread block takes a row block's
// scores, weighs the trusted ones, and the budget chooses (choose.cuh); in the end lists (kept_lists.cu).
#include "kernel/cuda/estimate/spargeattn.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/estimate/choose.cuh"
#include "kernel/cuda/estimate/kept_lists.h"
#include "kernel/cuda/estimate/pool.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr std::int32_t kMost = 1 << 24, kLeastRows = 32;

std::int32_t blocks(std::int32_t n, std::int32_t block) { return (n + block - 1) / block; }

struct Guarded {
  SpargeAttn a;
  std::int32_t row_blocks, key_blocks, words, pitch, sinks;
  bool all;
  const float *q_sum, *scores, *rows_alike, *keys_alike;
  std::uint32_t* bits;
  std::int32_t* counts;
};

// The product of the row block's sum and the sum of keys [begin, end), of a warp.
template <class T>
__device__ float cut_product(const Guarded& g, const float* q_sum, int kv, int begin, int end, int lane) {
  const T* k = static_cast<const T*>(g.a.k.data) + kv / g.a.hkv * g.a.k.batch + kv % g.a.hkv * g.a.k.head;
  float product = 0;
  for (int d = lane; d < g.a.dk; d += 32) {
    float sum = 0;
#pragma unroll 8
    for (int j = begin; j < end; ++j) sum += static_cast<float>(k[j * g.a.k.row + d]);
    product += sum * q_sum[d];
  }
  return sum_of_warp(product);
}

template <class T>
__global__ void __launch_bounds__(kChooseThreads) guard_rows(const Guarded g) {
  extern __shared__ float p[];
  __shared__ int flags[2 * kChooseWarps];
  __shared__ float largest[kChooseWarps], cut;
  const SpargeAttn& a = g.a;
  const int u = static_cast<int>(gridDim.x - 1 - blockIdx.x), head = static_cast<int>(blockIdx.y);  // longest first
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int first_row = u * a.row_block, rows = min(a.row_block, a.nq - first_row);
  const int seen = a.nk - a.nq + first_row + rows, n = (seen - 1) / a.block + 1, own = (a.nk - a.nq + first_row) / a.block;
  const int kv = head / (a.hq / a.hkv);
  const std::int64_t at = std::int64_t{head} * g.row_blocks + u;
  const float* alike = g.keys_alike + std::int64_t{kv} * g.key_blocks;
  const bool everything = g.all || !(g.rows_alike[at] > a.similarity);
  const auto trusted = [&](int b) { return alike[b] > a.similarity; };
  Least least{0, n};
  if (!everything) {
    const int last = n - 1, whole = min(a.block, a.nk - last * a.block), of_last = seen - last * a.block;
    if (warp == 0 && of_last < whole) {
      const float product = cut_product<T>(g, g.q_sum + at * g.pitch, kv, last * a.block, seen, lane);
      if (lane == 0) cut = product;
    }
    __syncthreads();
    float m = minus_infinity();
    for (int b = thread; b < n; b += kChooseThreads) {
      const float product = b == last && of_last < whole ? cut : g.scores[at * g.key_blocks + b];
      const int size = b == last ? of_last : a.block;
      const float s = product / (static_cast<float>(rows) * static_cast<float>(size)) * a.scale * 1.44269504f;
      p[b] = s;
      if (trusted(b)) m = fmaxf(m, s);
    }
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) m = fmaxf(m, __shfl_xor_sync(kAllLanes, m, bit));
    if (lane == 0) largest[warp] = m;
    __syncthreads();
    for (int w = 0; w < kChooseWarps; ++w) m = fmaxf(m, largest[w]);
    for (int b = thread; b < n; b += kChooseThreads) p[b] = trusted(b) ? exp2_fast(p[b] - m) : 0.0f;
    __syncthreads();
    float sum = 0;  // of every warp the same
    for (int b = lane; b < n; b += 32) sum += p[b];
    sum = sum_of_warp(sum);
    const Open open{p, 0, n, a.mass * sum, true};
    least = least_kept(open, flags);
    if (!(sum_from(open, least.bits + 1, lane) > 0)) least.ties = max(least.ties, 1);  // one at least
  }
  if (warp != 0) return;
  // Forced blocks that are trusted were among those to choose from, as on the CPU.
  const int count = write_kept(
      p, n, g.words, least, [&](int b) { return everything || b < g.sinks || b >= own || !trusted(b); },
      [&](int b) { return !everything && trusted(b); }, g.bits + at * g.words, lane);
  if (lane == 0) g.counts[at] = count;
}

std::int64_t up(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// What is in the room, one after the other; bytes.
struct Room {
  std::int64_t q_sum, k_sum, mean, rows_alike, keys_alike, scores, bits, counts;
  std::int64_t all() const { return q_sum + k_sum + mean + rows_alike + keys_alike + scores + bits + counts; }
};
Room room_of(const SpargeAttn& a) {
  const std::int64_t pitch = pooled_pitch(a.dk), rows = std::int64_t{a.batch} * a.hq * blocks(a.nq, a.row_block),
                     keys = std::int64_t{a.batch} * a.hkv * blocks(a.nk, a.block);
  return {up(rows * pitch * 4),
          up(keys * pitch * 4),
          up(std::int64_t{a.batch} * a.hkv * pitch * 4),
          up(rows * 4),
          up(keys * 4),
          up(rows * blocks(a.nk, a.block) * 4),
          up(rows * ((blocks(a.nk, a.block) + 31) / 32) * 4),
          up(rows * 4)};
}

bool empty(const SpargeAttn& a) { return a.batch == 0 || a.nq == 0; }
std::int64_t shared_bytes(const SpargeAttn& a) { return 4 * std::int64_t{blocks(a.nk, a.block)}; }

}  // namespace

std::int64_t spargeattn_entries(const SpargeAttn& a) {
  std::int64_t n = 0;
  for (std::int32_t u = 0; u < blocks(a.nq, a.row_block); ++u)
    n += (a.nk - a.nq + std::min((u + 1) * a.row_block, a.nq) - 1) / a.block + 1;
  return n * a.batch * a.hq;
}

std::int64_t spargeattn_room(const SpargeAttn& a) { return empty(a) ? 0 : room_of(a).all(); }

const char* spargeattn_why_not(const SpargeAttn& a) {
  if (a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) return "q and k must be bf16 or f16";
  if (a.batch < 0 || a.nq < 0 || a.nk < 0 || a.nq > kMost || a.nk > kMost)
    return "batch, rows and keys must be 0 to 2^24";
  if (a.nq > a.nk) return "more rows than keys: the last row is the last key's, so the first would be before all keys";
  if (a.hq < 1 || a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (std::int64_t{a.batch} * a.hq > 65535) return "more than 65535 query heads in the batch";
  if (a.dk < 8 || a.dk > 256 || a.dk % 8 != 0) return "head_dim must be a multiple of 8 from 8 to 256";
  if (!(a.scale > 0) || !std::isfinite(a.scale)) return "scale must be positive and finite";
  if ((a.row_block != 64 && a.row_block != 128) || (a.block != 64 && a.block != 128)) return "block and row_block must be 64 or 128";
  if (!(a.mass > 0)) return "mass must be above 0; 1 or more keeps everything";
  if (!(a.similarity >= -1 && a.similarity <= 1)) return "similarity must be -1 to 1";
  if (a.sink < 0) return "sink must be 0 or more";
  if (empty(a)) return nullptr;
  if (!a.q.data || !a.k.data) return "q or k is null";
  if (!a.row_ptr || !a.columns) return "row_ptr or columns is null";
  if (!a.room) return "room is null";
  if (reinterpret_cast<std::uintptr_t>(a.room) % 256 != 0) return "room must be 256-byte aligned";
  if (spargeattn_entries(a) > INT32_MAX) return "more than 2^31 blocks at or below the diagonal";
  if (capability() < 80) return "the GPU is older than compute capability 8.0, or there is none";
  if (shared_bytes(a) > 48 * 1024) return "more than 12288 blocks of keys";
  return nullptr;
}

const char* spargeattn(const SpargeAttn& a, void* stream) {
  if (empty(a)) return nullptr;
  const Room room = room_of(a);
  char* at = static_cast<char*>(a.room);
  const auto take = [&](std::int64_t bytes) {
    char* mine = at;
    at += bytes;
    return mine;
  };
  auto* q_sum = reinterpret_cast<float*>(take(room.q_sum));
  auto* k_sum = reinterpret_cast<float*>(take(room.k_sum));
  auto* mean = reinterpret_cast<float*>(take(room.mean));
  auto* rows_alike = reinterpret_cast<float*>(take(room.rows_alike));
  auto* keys_alike = reinterpret_cast<float*>(take(room.keys_alike));
  auto* scores = reinterpret_cast<float*>(take(room.scores));
  auto* bits = reinterpret_cast<std::uint32_t*>(take(room.bits));
  auto* counts = reinterpret_cast<std::int32_t*>(take(room.counts));

  Guarded g{};
  g.a = a;
  g.row_blocks = blocks(a.nq, a.row_block);
  g.key_blocks = blocks(a.nk, a.block);
  g.words = (g.key_blocks + 31) / 32;
  g.pitch = pooled_pitch(a.dk);
  g.sinks = static_cast<std::int32_t>(std::min<std::int64_t>(a.sink / a.block + (a.sink % a.block > 0), g.key_blocks));
  g.all = a.mass >= 1 || a.nk < 2 * a.block || a.nq < kLeastRows;
  g.q_sum = q_sum;
  g.scores = scores;
  g.rows_alike = rows_alike;
  g.keys_alike = keys_alike;
  g.bits = bits;
  g.counts = counts;
  const char* error = nullptr;
  if (!g.all) {
    error = pool({.dtype = a.dtype, .x = a.q, .batch = a.batch, .heads = a.hq, .n = a.nq, .dim = a.dk, .block = a.row_block,
                  .sum = q_sum, .alike = rows_alike}, stream);
    Pool keys{.dtype = a.dtype, .x = a.k, .batch = a.batch, .heads = a.hkv, .n = a.nk, .dim = a.dk, .block = a.block,
              .sum = k_sum, .alike = a.smooth ? nullptr : keys_alike};
    if (!error) error = pool(keys, stream);
    if (!error && a.smooth) {
      error = pool_mean(keys, mean, stream);
      keys.less = mean;
      keys.sum = nullptr;
      keys.alike = keys_alike;
      if (!error) error = pool(keys, stream);
    }
    if (!error)
      error = pooled_product({.q = q_sum, .k = k_sum, .heads = a.batch * a.hq, .group = a.hq / a.hkv, .rows = g.row_blocks,
                              .columns = g.key_blocks, .pitch = g.pitch, .row_block = a.row_block, .block = a.block,
                              .first_key = a.nk - a.nq, .score = scores}, stream);
  }
  if (error) return error;
  const dim3 grid(static_cast<unsigned>(g.row_blocks), static_cast<unsigned>(a.batch * a.hq));
  const auto bytes = static_cast<std::size_t>(shared_bytes(a));
  if (a.dtype == Dtype::bf16)
    guard_rows<__nv_bfloat16><<<grid, kChooseThreads, bytes, static_cast<cudaStream_t>(stream)>>>(g);
  else
    guard_rows<__half><<<grid, kChooseThreads, bytes, static_cast<cudaStream_t>(stream)>>>(g);
  if (const cudaError_t failed = cudaGetLastError(); failed != cudaSuccess) return cudaGetErrorString(failed);
  return write_lists({.lists = a.batch * a.hq, .rows = g.row_blocks, .words = g.words, .bits = bits, .counts = counts,
                      .row_ptr = a.row_ptr, .columns = a.columns}, stream);
}

BlockLists lists_of(const SpargeAttn& a) {
  BlockLists l;
  l.block_q = a.row_block;
  l.block_k = a.block;
  l.batches = a.batch;
  l.heads = a.hq;
  l.n_entries = static_cast<std::int32_t>(spargeattn_entries(a));
  l.row_ptr = a.row_ptr;
  l.columns = a.columns;
  return l;
}

}  // namespace lacuna::kernel::cuda
