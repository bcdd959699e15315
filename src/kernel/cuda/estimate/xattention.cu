// SPDX-License-Identifier: Apache-2.0
// XAttention's choice as launches: of as many KV heads at a time as have room, tiles of the strided product (sm90a/,
// sm80/strided.cu) and their sums and choice (gather.cu); in the end lists (kept_lists.cu).
#include "kernel/cuda/estimate/xattention.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/estimate/gather.h"
#include "kernel/cuda/estimate/kept_lists.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr std::int32_t kMost = 1 << 24;  // rows, keys

std::int32_t blocks(std::int32_t n, std::int32_t block) { return (n + block - 1) / block; }

bool keeps_all(const XAttention& a) { return a.mass >= 1 || a.nk < 2 * a.block || a.nq < 2 * a.stride; }

StridedGrid grid_of(const XAttention& a) {
  StridedGrid g;
  const std::int32_t first_key = a.nk - a.nq;
  g.hq = a.hq;
  g.group = a.hq / a.hkv;
  g.stride = a.stride;
  g.cell = std::min(16, a.block / a.stride);
  g.skip = (a.stride - first_key % a.stride) % a.stride;
  g.rows = blocks(std::max(0, a.nq - g.skip), a.stride);
  g.columns = blocks(a.nk, a.stride);
  g.first = (first_key + g.skip) / a.stride;
  return g;
}

std::int64_t up(std::int64_t bytes) { return (bytes + 255) / 256 * 256; }

// What is in the room, one after the other.
struct Room {
  std::int64_t cells = 0, maxima = 0, bits = 0, counts = 0;  // bytes
  std::int32_t kv_heads = 0;                                 // of a launch
  std::int64_t all() const { return cells + maxima + bits + counts; }
};
Room room_of(const XAttention& a) {
  Room r;
  const std::int64_t lists = std::int64_t{a.batch} * a.hq, rows = lists * blocks(a.nq, a.block);
  r.bits = up(rows * ((blocks(a.nk, a.block) + 31) / 32) * 4);
  r.counts = up(rows * 4);
  if (keeps_all(a)) return r;
  const StridedGrid g = grid_of(a);
  const std::int64_t rows_of_tiles = g.tiles_of_head() * g.group * kStridedRows, each = rows_of_tiles * (g.cells() * 2 + 4);
  const std::int32_t kv_heads = a.batch * a.hkv;
  const auto most = static_cast<std::int32_t>(std::clamp<std::int64_t>(a.most_room / each, 1, kv_heads));
  r.kv_heads = blocks(kv_heads, blocks(kv_heads, most));  // launches of about the same size
  r.cells = up(rows_of_tiles * r.kv_heads * g.cells() * 2);
  r.maxima = up(rows_of_tiles * r.kv_heads * 4);
  return r;
}

Gather gather_of(const XAttention& a, const Room& room) {
  Gather s;
  s.nq = a.nq;
  s.nk = a.nk;
  s.block = a.block;
  s.row_blocks = blocks(a.nq, a.block);
  s.key_blocks = blocks(a.nk, a.block);
  s.words = (s.key_blocks + 31) / 32;
  s.sink = a.sink;
  s.window = a.window;
  s.mass = a.mass;
  s.all = keeps_all(a);
  s.estimate = a.estimate;
  if (!s.all) s.grid = grid_of(a);
  char* at = static_cast<char*>(a.room);
  s.cells = at;
  s.maxima = reinterpret_cast<const float*>(at + room.cells);
  s.bits = reinterpret_cast<std::uint32_t*>(at + room.cells + room.maxima);
  s.counts = reinterpret_cast<std::int32_t*>(at + room.cells + room.maxima + room.bits);
  return s;
}

StridedProduct product_of(const XAttention& a, const Gather& s) {
  StridedProduct p;
  p.dtype = a.dtype;
  p.batch = a.batch;
  p.hkv = a.hkv;
  p.nq = a.nq;
  p.nk = a.nk;
  p.dk = a.dk;
  p.q = a.q;
  p.k = a.k;
  p.grid = s.grid;
  p.scale_log2 = a.scale / (static_cast<float>(a.stride) * a.norm) * 1.44269504f;
  p.cells = const_cast<void*>(s.cells);
  p.maxima = const_cast<float*>(s.maxima);
  return p;
}

bool empty(const XAttention& a) { return a.batch == 0 || a.nq == 0; }

}  // namespace

std::int64_t xattention_entries(const XAttention& a) {
  std::int64_t n = 0;
  for (std::int32_t u = 0; u < blocks(a.nq, a.block); ++u)
    n += (a.nk - a.nq + std::min((u + 1) * a.block, a.nq) - 1) / a.block + 1;
  return n * a.batch * a.hq;
}

std::int64_t xattention_room(const XAttention& a) { return empty(a) ? 0 : room_of(a).all(); }

const char* xattention_why_not(const XAttention& a) {
  if (a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) return "q and k must be bf16 or f16";
  if (a.batch < 0 || a.nq < 0 || a.nk < 0 || a.nq > kMost || a.nk > kMost)
    return "batch, rows and keys must be 0 to 2^24";
  if (a.nq > a.nk) return "more rows than keys: the last row is the last key's, so the first would be before all keys";
  if (a.hq < 1 || a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (std::int64_t{a.batch} * a.hq > 65535) return "more than 65535 query heads in the batch";
  if (a.dk < 8 || a.dk > 256 || a.dk % 8 != 0) return "head_dim must be a multiple of 8 from 8 to 256";
  if (!(a.scale > 0) || !std::isfinite(a.scale)) return "scale must be positive and finite";
  if (!(a.norm > 0) || !std::isfinite(a.norm)) return "norm must be positive and finite";
  if (a.stride < 1 || a.stride > 16 || (a.stride & (a.stride - 1)) != 0) return "stride must be 1, 2, 4, 8 or 16";
  if (a.block != 64 && a.block != 128) return "block must be 64 or 128";
  if (!(a.mass > 0)) return "mass must be above 0; 1 or more keeps everything";
  if (a.sink < 1 || a.window < 1) return "sink and window must be 1 or more";
  if (empty(a)) return nullptr;
  if (!a.q.data || !a.k.data) return "q or k is null";
  if (!a.row_ptr || !a.columns) return "row_ptr or columns is null";
  if (!a.room) return "room is null";
  if (reinterpret_cast<std::uintptr_t>(a.room) % 256 != 0) return "room must be 256-byte aligned";
  if (xattention_entries(a) > INT32_MAX) return "more than 2^31 blocks at or below the diagonal";
  if (capability() < 80) return "the GPU is older than compute capability 8.0, or there is none";
  if (!keeps_all(a)) {
    const Gather s = gather_of(a, {});
    int device = 0, most = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (gather_shared_bytes(s) + 1024 > most)
      return "a row block's strided rows and blocks do not fit in shared memory: a larger stride does";
  }
  return nullptr;
}

const char* xattention(const XAttention& a, void* stream) {
  if (empty(a)) return nullptr;
  const Room room = room_of(a);
  Gather s = gather_of(a, room);
  const char* error = nullptr;
  if (s.all) {
    error = gather(s, a.batch * a.hq, stream);
  } else {
    StridedProduct p = product_of(a, s);
    const bool fast = !sm90a::strided_why_not(p);
    for (std::int32_t kv = 0; kv < a.batch * a.hkv && !error; kv += room.kv_heads) {
      p.first_head = kv;
      p.kv_heads = std::min(room.kv_heads, a.batch * a.hkv - kv);
      s.first_head = kv * s.grid.group;
      error = fast ? sm90a::strided(p, stream) : sm80::strided(p, stream);
      if (!error) error = gather(s, p.kv_heads * s.grid.group, stream);
    }
  }
  if (error) return error;
  return write_lists({.lists = a.batch * a.hq,
                      .rows = s.row_blocks,
                      .words = s.words,
                      .bits = s.bits,
                      .counts = s.counts,
                      .row_ptr = a.row_ptr,
                      .columns = a.columns},
                     stream);
}

BlockLists lists_of(const XAttention& a) {
  BlockLists l;
  l.block_q = l.block_k = a.block;
  l.batches = a.batch;
  l.heads = a.hq;
  l.n_entries = static_cast<std::int32_t>(xattention_entries(a));
  l.row_ptr = a.row_ptr;
  l.columns = a.columns;
  return l;
}

}  // namespace lacuna::kernel::cuda
