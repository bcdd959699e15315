// SPDX-License-Identifier: Apache-2.0
// op attend_grad on AMX: bf16 operands, f32 sums. Everything is made transposed, keys down and rows across, so that
// rows lie in the lanes when scores become weights, and so that weights are operands as they come:
//   S^T = K q^T      D^T = V G^T       [32 keys][32 rows], f32
//   dv += P^T G      dk += dS^T q      P^T, dS^T: A tiles, a key's 32 rows side by side
//   dq^T += K^T dS^T                   dS^T: B tiles, two neighbouring keys interleaved
// Phases:
//   0  (row block, query head): q and G packed in the two operand orders each is needed in, lse and rest of each row;
//      delta is made from the rounded G, since an error in G then meets v - out, not v; for the sinks, exactly
//   1  (KV head, part): every parts-th block of 256 keys; K, K^T and V packed, dk and dv in the second cache. Units
//      of 32 rows pass by in batches of 8: weights of the whole batch first, then the three products, whose C tiles
//      are so loaded and stored once per 8 products at best
//   2  (row block, query head): the parts' dq^T turned around
// Weighing stands between the tile products of the next step, as in attend.cpp.
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/amx/weigh.h"
#include "kernel/cpu/avx512/gather.inc"
#include "kernel/cpu/lane16/attend_grad_walk.inc"

namespace lacuna::kernel::amx {
namespace {

using avx512::grad::Args;
using avx512::grad::kBlockTiles;
using avx512::grad::key_blocks;
using avx512::grad::parts_of;
using avx512::grad::rows_of;
using avx512::grad::Walk;

constexpr int kUnitRows = 32;
constexpr int kBatch = 8;
constexpr int kSlotFloats = kTileKeys * kUnitRows;
constexpr int kSlot = 2 * kSlotFloats + 32;  // S^T and D^T of a step; off the powers of two
constexpr float kNone = -__builtin_inff();

// Sizes in tiles of 1 KB.
struct Shape {
  int k_depth, v_depth;        // of products over channels
  int k_channels, v_channels;  // tiles of 16 channels, an even number
  explicit Shape(const op::Attend::Args& f)
      : k_depth(ceil_div(f.dk, 32)), v_depth(ceil_div(f.dv, 32)), k_channels(2 * k_depth), v_channels(2 * v_depth) {}
};

// 32 rows of a row block of a query head, packed.
struct Unit {
  char *q = nullptr, *q_pairs = nullptr;  // [half of 16 rows][k_depth] and [k_channels] B tiles
  char *g = nullptr, *g_pairs = nullptr;  // the same of G
  float *lse = nullptr, *rest = nullptr;  // [32]; lse in base 2, but natural with a soft-cap; +inf: no such row

  Unit() = default;
  // 2 KB more than the tiles: those that a batch reads together spread over the first cache's sets.
  static std::size_t bytes(const Shape& s) {
    return std::size_t{4} * (s.k_depth + s.v_depth) * kTileBytes + 2 * kTileBytes;
  }
  Unit(const Shape& s, char* at)
      : q(at),
        q_pairs(q + 2L * s.k_depth * kTileBytes),
        g(q_pairs + 2L * s.k_depth * kTileBytes),
        g_pairs(g + 2L * s.v_depth * kTileBytes),
        lse(reinterpret_cast<float*>(g_pairs + 2L * s.v_depth * kTileBytes)),
        rest(lse + kUnitRows) {}
};

// What all workers share.
struct Shared {
  int per_block;       // units of a row block
  std::int64_t count;  // units in all
  std::size_t unit_bytes, d_q_bytes;
  char* units;            // [query head][row block][per_block]
  char* d_q;              // [part][unit][k_channels][2] C tiles: 16 channels, 16 rows
  std::uint8_t* touched;  // [part][unit]: d_q holds something
  float* rest;            // [hq][n_rows], for the sinks
  std::size_t bytes;

  Shared(const Args& a, int parts, char* at) {
    const op::Attend::Args& f = a.forward;
    const Shape s(f);
    const int rows = f.runs.block_q < f.n_rows ? f.runs.block_q : f.n_rows;
    per_block = ceil_div(rows, kUnitRows);
    count = static_cast<std::int64_t>(f.hq) * avx512::blocks_of(f.runs) * per_block;
    unit_bytes = Unit::bytes(s);
    d_q_bytes = std::size_t{2} * s.k_channels * kTileBytes;
    const auto n = static_cast<std::size_t>(count), p = static_cast<std::size_t>(parts);
    units = at;
    std::size_t used = n * unit_bytes;
    d_q = at + used;
    if (a.d_q) used += p * n * d_q_bytes;
    touched = reinterpret_cast<std::uint8_t*>(at + used);
    used += (p * n + 63) / 64 * 64;
    rest = reinterpret_cast<float*>(at + used);
    bytes = used + static_cast<std::size_t>(f.hq) * static_cast<std::size_t>(f.n_rows) * 4;
  }
  std::int64_t unit_of(const Args& a, int head, int block, int i) const {
    return (static_cast<std::int64_t>(head) * avx512::blocks_of(a.forward.runs) + block) * per_block + i;
  }
  char* unit(std::int64_t i) const { return units + static_cast<std::size_t>(i) * unit_bytes; }
  float* d_q_of(int part, std::int64_t i) const {
    return reinterpret_cast<float*>(d_q + static_cast<std::size_t>(part * count + i) * d_q_bytes);
  }
};

// A worker's memory: a block of keys, and the weights of a batch.
struct Scratch {
  char *k, *v;       // [tile][half of 16 keys][depth] A tiles
  char* k_turned;    // [k_channels][tile] A tiles: 16 channels, 32 keys
  char* pairs;       // one tile's keys on their way to k_turned
  float *d_k, *d_v;  // [tile][half of 16 keys][channels] C tiles
  char *p, *ds;      // [tile][unit][half of 16 keys] A tiles
  char* ds_pairs;    // [unit][tile][2] B tiles
  float* slots;      // [2][kSlot]
  float* bias;       // [key][16]
  float* discard;    // where C tiles go that nobody waits for
  std::size_t bytes;

  Scratch(const Shape& s, char* at) {
    std::size_t used = 0;
    const auto tiles = [&](int n) {
      char* here = at + used;
      used += static_cast<std::size_t>(n) * kTileBytes;
      return here;
    };
    const auto floats = [&](int n) { return reinterpret_cast<float*>(tiles(n)); };
    k = tiles(kBlockTiles * 2 * s.k_depth);
    v = tiles(kBlockTiles * 2 * s.v_depth);
    k_turned = tiles(kBlockTiles * s.k_channels);
    pairs = tiles(2 * s.k_depth);
    d_k = floats(kBlockTiles * 2 * s.k_channels);
    d_v = floats(kBlockTiles * 2 * s.v_channels);
    p = tiles(kBatch * kBlockTiles * 2);
    ds = tiles(kBatch * kBlockTiles * 2);
    ds_pairs = tiles(kBatch * kBlockTiles * 2);
    slots = floats(ceil_div(2 * kSlot * 4, kTileBytes));
    bias = floats(kBlockTiles * kTileKeys * 64 / kTileBytes);
    discard = floats(1);
    bytes = used;
  }
};

// Sixteen f32 rows (null: zeros) into both operand orders: to `half` of a [2][depth] of B tiles over channels, and to
// that half of the rows of B tiles over rows.
void pack16(const float* const* row, int dim, int half, int depth, char* channels, char* rows) {
  const __m512i low_pairs = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                             37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high_pairs = _mm512_add_epi16(low_pairs, _mm512_set1_epi16(16));
  channels += static_cast<long>(half) * depth * kTileBytes;
  rows += half * 8 * 64;
  for (int d = 0; d < dim; d += 32, channels += kTileBytes, rows += 2 * kTileBytes) {
    __m512i x[16];
    for (int i = 0; i < 16; ++i) {
      x[i] = _mm512_setzero_si512();
      if (!row[i]) continue;
      const __m512 low = _mm512_maskz_loadu_ps(first_lanes(dim - d), row[i] + d);
      const __m512 high = _mm512_maskz_loadu_ps(first_lanes(dim - d - 16), row[i] + d + 16);
      x[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
    }
    for (int i = 0; i < 16; i += 2) {
      _mm512_store_si512(rows + i * 32, _mm512_permutex2var_epi16(x[i], low_pairs, x[i + 1]));
      _mm512_store_si512(rows + kTileBytes + i * 32, _mm512_permutex2var_epi16(x[i], high_pairs, x[i + 1]));
    }
    avx512::transpose(x);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(channels + i * 64, x[i]);
  }
}

// G . out of a row; `rounded`: of G as it is packed.
float delta_of(const float* g, const float* out, int dim, bool rounded) {
  __m512 sum = _mm512_setzero_ps();
  for (int d = 0; d < dim; d += 16) {
    __m512 x = _mm512_maskz_loadu_ps(first_lanes(dim - d), g + d);
    if (rounded) {
      const __m256i near = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
      x = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(near), 16));
    }
    sum = _mm512_fmadd_ps(x, _mm512_maskz_loadu_ps(first_lanes(dim - d), out + d), sum);
  }
  return _mm512_reduce_add_ps(sum);
}

// Phase 0: a row block of a head.
void pack_rows(const Args& a, int head, int block, const Shared& shared) {
  const op::Attend::Args& f = a.forward;
  const Shape s(f);
  const int first = block * f.runs.block_q, rows = rows_of(a, block);
  for (int u = 0; u < shared.per_block; ++u) {
    const Unit x(s, shared.unit(shared.unit_of(a, head, block, u)));
    for (int half = 0; half < 2; ++half) {
      const float *q[16], *g[16];
      for (int i = 0; i < 16; ++i) {
        const int r = u * kUnitRows + half * 16 + i, row = first + r;
        const std::int64_t at = static_cast<std::int64_t>(head) * f.n_rows + row;
        q[i] = g[i] = nullptr;
        x.lse[half * 16 + i] = -kNone;
        x.rest[half * 16 + i] = 0;
        if (r >= rows) continue;
        shared.rest[at] = 0;
        if (f.lse[at] == kNone) continue;
        q[i] = f.q + head * f.q_head + row * f.q_row;
        g[i] = a.d_out + head * a.d_out_head + row * a.d_out_row;
        const float* out = a.delta ? nullptr : f.out + head * f.out_head + row * f.out_row;
        const float d_lse = a.d_lse ? a.d_lse[at] : 0.0f;
        x.lse[half * 16 + i] = f.softcap > 0 ? f.lse[at] : f.lse[at] * kLog2e;
        x.rest[half * 16 + i] = d_lse - (a.delta ? a.delta[at] : delta_of(g[i], out, f.dv, true));
        if (a.d_sinks) shared.rest[at] = d_lse - (a.delta ? a.delta[at] : delta_of(g[i], out, f.dv, false));
      }
      pack16(q, f.dk, half, s.k_depth, x.q, x.q_pairs);
      pack16(g, f.dv, half, s.v_depth, x.g, x.g_pairs);
    }
  }
}

// Sixteen raw rows as A tiles: [depth][row][32 channels].
template <Dtype T>
void rows_as(const char* const* row, int dim, char* to) {
  constexpr PackFormat kPair = PackFormat::pair16_bf16;
  for (int d = 0; d < dim; d += 32, to += kTileBytes)
    for (int i = 0; i < 16; ++i) {
      const __m256i low = avx512::channels_as<T, kPair>(row[i], d, dim);
      const __m256i high = d + 16 < dim ? avx512::channels_as<T, kPair>(row[i], d + 16, dim) : _mm256_setzero_si256();
      _mm512_store_si512(to + i * 64, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
    }
}

template <class Tiles>
class Task {
 public:
  Task(const Args& a, int kv_head, int parts, int part, const Shared& shared, char* scratch)
      : a_(a),
        f_(a.forward),
        shape_(a.forward),
        shared_(shared),
        x_(shape_, scratch),
        kv_head_(kv_head),
        parts_(parts),
        part_(part) {
    factor_ = f_.scale * kLog2e;
    for (float*& p : pending_) p = x_.discard;
  }

  void run() {
    const int group = f_.hq / f_.hkv;
    for (int h = kv_head_ * group; h < (kv_head_ + 1) * group; ++h) {
      const std::int64_t of_head = shared_.count / f_.hq;
      __builtin_memset(shared_.touched + part_ * shared_.count + h * of_head, 0, static_cast<std::size_t>(of_head));
      if (a_.d_sinks && part_ == 0) sum_sinks(h);
    }
    for (int b = part_; b < key_blocks(a_); b += parts_) run_keys(b);
  }

 private:
  // A unit of the batch, and which tiles of the block its rows see.
  struct Member {
    Unit unit;
    std::int64_t index = 0;
    const std::uint32_t* words[kBlockTiles] = {};  // of its first row; null: all see all
    std::uint32_t present = 0;
    int live = 0;
  };
  // What weighing a step needs.
  struct Step {
    const float* s = nullptr;  // S^T, then D^T
    const Member* of = nullptr;
    char *p = nullptr, *ds = nullptr, *pairs = nullptr;
    float* bias = nullptr;
    const std::uint32_t* words = nullptr;
  };

  void sum_sinks(int head) const {
    double total = 0;
    const float* lse = f_.lse + static_cast<std::int64_t>(head) * f_.n_rows;
    const float* rest = shared_.rest + static_cast<std::int64_t>(head) * f_.n_rows;
    for (int i = 0; f_.sinks && i < f_.n_rows; ++i)
      if (lse[i] != kNone) total += static_cast<double>(exp2_of((f_.sinks[head] - lse[i]) * kLog2e) * rest[i]);
    a_.d_sinks[head] = static_cast<float>(total);
  }

  template <Dtype T>
  void lay_out(const std::int32_t* cells, int tile) const {
    for (int half = 0; half < 2; ++half) {
      const char* row[16];
      avx512::rows_at(f_.v, kv_head_ * f_.v_head, f_.v_cell, T, cells + half * 16, row);
      rows_as<T>(row, f_.dv, x_.v + (tile * 2L + half) * shape_.v_depth * kTileBytes);
      avx512::rows_at(f_.k, kv_head_ * f_.k_head, f_.k_cell, T, cells + half * 16, row);
      rows_as<T>(row, f_.dk, x_.k + (tile * 2L + half) * shape_.k_depth * kTileBytes);
      if (a_.d_q)
        avx512::keys16<T, PackFormat::pair16_bf16>(row, f_.dk,
                                                   x_.pairs + static_cast<long>(half) * shape_.k_depth * kTileBytes);
    }
    if (!a_.d_q) return;
    const char *low = x_.pairs, *high = low + static_cast<long>(shape_.k_depth) * kTileBytes;
    for (int d = 0; d < shape_.k_depth * 32; d += 2, low += 64, high += 64) {
      char* to = x_.k_turned + (d / 16L * kBlockTiles + tile) * kTileBytes + d % 16 * 64;
      const __m512i a = _mm512_load_si512(low), b = _mm512_load_si512(high);
      _mm256_store_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(a));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + 32), _mm512_cvtepi32_epi16(b));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + 64), _mm512_cvtepi32_epi16(_mm512_srli_epi32(a, 16)));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to + 96), _mm512_cvtepi32_epi16(_mm512_srli_epi32(b, 16)));
    }
  }

  void run_keys(int key_block) {
    const int first_tile = key_block * kBlockTiles;
    tiles_here_ = a_.inverse.tiles - first_tile < kBlockTiles ? a_.inverse.tiles - first_tile : kBlockTiles;
    const std::int64_t first = static_cast<std::int64_t>(first_tile) * kTileKeys, left = f_.n_cells - first;
    const int keys = static_cast<int>(left < tiles_here_ * kTileKeys ? left : tiles_here_ * kTileKeys);
    const int group = f_.hq / f_.hkv;
    const bool bias_by_head = a_.bias_heads == f_.hq;
    std::int32_t cells[kBlockTiles][kTileKeys];
    const bool any = avx512::grad::find_seen(a_, kv_head_, first_tile, tiles_here_, cells);
    for (int t = 0; any && t < tiles_here_; ++t) {
      if (f_.k_type == Dtype::f32)
        lay_out<Dtype::f32>(cells[t], t);
      else if (f_.k_type == Dtype::f16)
        lay_out<Dtype::f16>(cells[t], t);
      else
        lay_out<Dtype::bf16>(cells[t], t);
    }
    keys_touched_ = 0;
    if (a_.d_key_bias) __builtin_memset(x_.bias, 0, kBlockTiles * kTileKeys * 64);
    for (int h = kv_head_ * group; h < (kv_head_ + 1) * group; ++h) {
      Walk walk(a_, h, first_tile, tiles_here_);
      std::uint32_t present;
      const std::uint32_t* words[kBlockTiles];
      for (int b; any && (b = walk.next(present, words)) >= 0;) add_block(h, b, present, words);
      if (!a_.d_key_bias || !bias_by_head) continue;
      flush();
      put_bias(keys, a_.d_key_bias + h * f_.n_cells + first);
    }
    flush();
    if (a_.d_key_bias && !bias_by_head) put_bias(keys, a_.d_key_bias + kv_head_ * f_.n_cells + first);
    if (a_.d_k)
      put_keys(x_.d_k, shape_.k_channels, keys, f_.dk, f_.scale, a_.d_k + kv_head_ * a_.d_k_head + first * a_.d_k_cell,
               a_.d_k_cell);
    if (a_.d_v)
      put_keys(x_.d_v, shape_.v_channels, keys, f_.dv, 1.0f, a_.d_v + kv_head_ * a_.d_v_head + first * a_.d_v_cell,
               a_.d_v_cell);
  }

  void put_bias(int keys, float* to) const {
    for (int j = 0; j < keys; ++j) to[j] = _mm512_reduce_add_ps(_mm512_load_ps(x_.bias + j * 16));
    __builtin_memset(x_.bias, 0, kBlockTiles * kTileKeys * 64);
  }

  void put_keys(const float* from, int channels, int keys, int dim, float factor, float* to, std::int64_t step) const {
    for (int j = 0; j < keys; ++j) {
      const float* tile = from + static_cast<long>(j / 16) * channels * 256 + j % 16 * 16;
      const bool touched = keys_touched_ >> (j / kTileKeys) & 1;
      for (int d = 0; d < dim; d += 16, tile += 256) {
        const __m512 x = touched ? _mm512_mul_ps(_mm512_load_ps(tile), _mm512_set1_ps(factor)) : _mm512_setzero_ps();
        _mm512_mask_storeu_ps(to + j * step + d, first_lanes(dim - d), x);
      }
    }
  }

  // The units of a row block join the batch, with the tiles some row of theirs sees.
  void add_block(int head, int block, std::uint32_t present, const std::uint32_t* const* words) {
    const int rows = rows_of(a_, block);
    for (int u = 0; u * kUnitRows < rows; ++u) {
      const std::int64_t index = shared_.unit_of(a_, head, block, u);
      Member& m = batch_[size_];
      m.unit = Unit(shape_, shared_.unit(index));
      m.index = index;
      m.live = rows - u * kUnitRows < kUnitRows ? rows - u * kUnitRows : kUnitRows;
      m.present = 0;
      for (int t = 0; t < tiles_here_; ++t) {
        if (!(present >> t & 1)) continue;
        m.words[t] = words[t] ? words[t] + u * kUnitRows : nullptr;
        std::uint32_t seen = words[t] ? 0 : 1;
        for (int r = 0; words[t] && r < m.live; ++r) seen |= m.words[t][r];
        if (seen) m.present |= 1u << t;
      }
      if (m.present && ++size_ == kBatch) flush();
    }
  }

  void flush() {
    if (size_ == 0) return;
    weigh_batch();
    for (int t = 0; t < tiles_here_; ++t) {
      if (a_.d_v) add_to_keys<true>(t);
      if (a_.d_k) add_to_keys<false>(t);
      for (int u = 0; u < size_; ++u) keys_touched_ |= batch_[u].present & 1u << t;
    }
    if (a_.d_q)
      for (int u = 0; u < size_; ++u) add_to_rows(u);
    store_pending();
    size_ = 0;
  }

  void weigh_batch() {
    Step waiting;
    int turn = 0;
    for (int u = 0; u < size_; ++u)
      for (int t = 0; t < tiles_here_; ++t) {
        if (!(batch_[u].present >> t & 1)) continue;
        float* slot = x_.slots + turn * kSlot;
        turn ^= 1;
        if (!waiting.s)
          score<0>(batch_[u], t, slot, waiting);
        else if (waiting.words)
          score<1>(batch_[u], t, slot, waiting);
        else
          score<2>(batch_[u], t, slot, waiting);
        const long by_tile = static_cast<long>(t * kBatch + u) * 2 * kTileBytes;
        waiting = {slot,
                   &batch_[u],
                   x_.p + by_tile,
                   x_.ds + by_tile,
                   x_.ds_pairs + static_cast<long>(u * kBlockTiles + t) * 2 * kTileBytes,
                   a_.d_key_bias ? x_.bias + t * kTileKeys * 16 : nullptr,
                   batch_[u].words[t]};
      }
    store_pending();
    Weights w(*this, waiting);
    for (int i = 0; i < kTileKeys / 2; ++i) waiting.words ? w.template keys<true>(i) : w.template keys<false>(i);
  }

  // Weights of two neighbouring keys at a time. By value: tile instructions may touch any memory.
  struct Weights {
    const float* s;
    char *p, *ds, *pairs;
    float* bias;
    __m512 lse[2], rest[2], factor, cap;
    __m512i words[2];
    bool capped;
    [[gnu::always_inline]] Weights(const Task& task, const Step& x)
        : s(x.s), p(x.p), ds(x.ds), pairs(x.pairs), bias(x.bias), capped(task.f_.softcap > 0) {
      factor = _mm512_set1_ps(capped ? task.f_.scale / task.f_.softcap : task.factor_);
      cap = _mm512_set1_ps(task.f_.softcap);
      for (int h = 0; h < 2; ++h) {
        lse[h] = _mm512_load_ps(x.of->unit.lse + h * 16);
        rest[h] = _mm512_load_ps(x.of->unit.rest + h * 16);
        words[h] = x.words ? _mm512_maskz_loadu_epi32(first_lanes(x.of->live - h * 16), x.words + h * 16)
                           : _mm512_setzero_si512();
      }
    }
    template <bool kMasked>
    [[gnu::always_inline]] __m512i key(int j) const {
      __m512 weight[2], grad[2];
      for (int h = 0; h < 2; ++h) {
        const __m512 score = _mm512_load_ps(s + j * kUnitRows + h * 16);
        const __m512 d = _mm512_load_ps(s + kSlotFloats + j * kUnitRows + h * 16);
        __m512 x, slope = _mm512_setzero_ps();
        if (__builtin_expect(capped, false)) {
          const __m512 y = tanh16(_mm512_mul_ps(score, factor));
          slope = _mm512_fnmadd_ps(y, y, _mm512_set1_ps(1.0f));
          x = _mm512_mul_ps(_mm512_fmsub_ps(y, cap, lse[h]), _mm512_set1_ps(kLog2e));
        } else {
          x = _mm512_fmsub_ps(score, factor, lse[h]);
        }
        weight[h] = exp2_fast(x);
        grad[h] = _mm512_mul_ps(weight[h], _mm512_add_ps(d, rest[h]));
        if constexpr (kMasked) {
          const __mmask16 seen = _mm512_test_epi32_mask(words[h], _mm512_set1_epi32(static_cast<int>(1u << j)));
          weight[h] = _mm512_maskz_mov_ps(seen, weight[h]);
          grad[h] = _mm512_maskz_mov_ps(seen, grad[h]);
        }
        if (__builtin_expect(bias != nullptr, false))
          _mm512_store_ps(bias + j * 16, _mm512_add_ps(_mm512_load_ps(bias + j * 16), grad[h]));
        if (__builtin_expect(capped, false)) grad[h] = _mm512_mul_ps(grad[h], slope);
      }
      const __m512i ds_key = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(grad[1], grad[0]));
      _mm512_store_si512(p + j * 64, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(weight[1], weight[0])));
      _mm512_store_si512(ds + j * 64, ds_key);
      return ds_key;
    }
    // Interleaving within 128 bits puts rows 0-3, 8-11, 16-19, 24-27 into one B tile and the rest into the other:
    // the columns of dq^T come in that order (row_of).
    template <bool kMasked>
    [[gnu::always_inline]] void keys(int i) const {
      const __m512i even = key<kMasked>(2 * i), odd = key<kMasked>(2 * i + 1);
      _mm512_store_si512(pairs + i * 64, _mm512_unpacklo_epi16(even, odd));
      _mm512_store_si512(pairs + kTileBytes + i * 64, _mm512_unpackhi_epi16(even, odd));
    }
  };

  // S^T and D^T of a step; the weights of the one before. kMode: 0 there is none, 1 hidden cells, 2 all seen.
  template <int kMode>
  void score(const Member& m, int t, float* slot, const Step& before) {
    int done = 0;
    const auto products = [&](const char* keys, const char* rows, int depth, const auto& some_keys) {
      const long half = static_cast<long>(depth) * kTileBytes;
      for (int d = 0; d < depth; ++d, keys += kTileBytes, rows += kTileBytes) {
        if (d == 0) restart<0>();
        tiles_.template load<4>(keys, 64);
        tiles_.template load<6>(rows, 64);
        tiles_.template multiply_add<0, 4, 6>();
        if (d == 0) restart<1>();
        tiles_.template load<7>(rows + half, 64);
        tiles_.template multiply_add<1, 4, 7>();
        some_keys();
        if (d == 0) restart<2>();
        tiles_.template load<5>(keys + half, 64);
        tiles_.template multiply_add<2, 5, 6>();
        if (d == 0) restart<3>();
        tiles_.template multiply_add<3, 5, 7>();
        some_keys();
      }
    };
    const auto wait_for = [&](float* s) {
      for (int i = 0; i < 4; ++i) pending_[i] = s + i / 2 * 16 * kUnitRows + i % 2 * 16;
      pending_stride_ = kUnitRows * sizeof(float);
    };
    const char* k = x_.k + static_cast<long>(t) * 2 * shape_.k_depth * kTileBytes;
    const char* v = x_.v + static_cast<long>(t) * 2 * shape_.v_depth * kTileBytes;
    if constexpr (kMode == 0) {
      products(k, m.unit.q, shape_.k_depth, [] {});
      wait_for(slot);
      products(v, m.unit.g, shape_.v_depth, [] {});
      wait_for(slot + kSlotFloats);
    } else {
      const Weights w(*this, before);
      const auto two_keys = [&]() __attribute__((always_inline)) {
        if (done < kTileKeys / 2) w.template keys<kMode == 1>(done++);
      };
      int calls = 0;  // the last scores are being stored during the first products
      products(
          k, m.unit.q, shape_.k_depth, [&]() __attribute__((always_inline)) {
            if (++calls > 2) two_keys();
          });
      wait_for(slot);
      products(v, m.unit.g, shape_.v_depth, two_keys);
      wait_for(slot + kSlotFloats);
      while (done < kTileKeys / 2) two_keys();
    }
  }

  template <int T>
  [[gnu::always_inline]] void restart() {
    tiles_.template store<T>(pending_[T], pending_stride_);
    tiles_.template zero<T>();
  }
  template <int T>
  [[gnu::always_inline]] void reload(const float* c, bool holds) {
    tiles_.template store<T>(pending_[T], pending_stride_);
    if (holds)
      tiles_.template load<T>(c, 64);
    else
      tiles_.template zero<T>();
  }
  void store_pending() {
    tiles_.template store<0>(pending_[0], pending_stride_);
    tiles_.template store<1>(pending_[1], pending_stride_);
    tiles_.template store<2>(pending_[2], pending_stride_);
    tiles_.template store<3>(pending_[3], pending_stride_);
    for (float*& p : pending_) p = x_.discard;
    pending_stride_ = 64;
  }
  // Four C tiles: two side by side at `low` and at `high`.
  void reload_all(float* low, float* high, bool holds) {
    reload<0>(low, holds);
    reload<1>(low + 256, holds);
    reload<2>(high, holds);
    reload<3>(high + 256, holds);
    pending_[0] = low;
    pending_[1] = low + 256;
    pending_[2] = high;
    pending_[3] = high + 256;
    pending_stride_ = 64;
  }
  [[gnu::always_inline]] void four_products(const char* a, const char* a_next, const char* b, const char* b_next) {
    tiles_.template load<4>(a, 64);
    tiles_.template load<6>(b, 64);
    tiles_.template multiply_add<0, 4, 6>();
    tiles_.template load<7>(b_next, 64);
    tiles_.template multiply_add<1, 4, 7>();
    tiles_.template load<5>(a_next, 64);
    tiles_.template multiply_add<2, 5, 6>();
    tiles_.template multiply_add<3, 5, 7>();
  }

  // dv (or dk) of a tile += P^T G (dS^T q) of the batch, 32 channels at a time.
  template <bool kValues>
  void add_to_keys(int t) {
    const char *weights[kBatch], *rows[kBatch];
    int n = 0;
    for (int u = 0; u < size_; ++u) {
      if (!(batch_[u].present >> t & 1)) continue;
      weights[n] = (kValues ? x_.p : x_.ds) + static_cast<long>(t * kBatch + u) * 2 * kTileBytes;
      rows[n++] = kValues ? batch_[u].unit.g_pairs : batch_[u].unit.q_pairs;
    }
    if (n == 0) return;
    const int channels = kValues ? shape_.v_channels : shape_.k_channels;
    const bool holds = keys_touched_ >> t & 1;
    float* low = (kValues ? x_.d_v : x_.d_k) + static_cast<long>(t) * 2 * channels * 256;
    for (int c = 0; c < channels; c += 2) {
      reload_all(low + c * 256, low + (channels + c) * 256, holds);
      for (int i = 0; i < n; ++i) {
        const char* y = rows[i] + static_cast<long>(c) * kTileBytes;
        four_products(weights[i], weights[i] + kTileBytes, y, y + kTileBytes);
      }
    }
  }

  // dq^T of a unit += K^T dS^T of the block.
  void add_to_rows(int u) {
    const Member& m = batch_[u];
    float* to = shared_.d_q_of(part_, m.index);
    std::uint8_t& touched = shared_.touched[part_ * shared_.count + m.index];
    int tile[kBlockTiles], n = 0;
    for (int t = 0; t < tiles_here_; ++t)
      if (m.present >> t & 1) tile[n++] = t;
    for (int c = 0; c < shape_.k_channels; c += 2) {
      reload_all(to + c * 512, to + c * 512 + 512, touched);
      for (int i = 0; i < n; ++i) {
        const char* k = x_.k_turned + (static_cast<long>(c) * kBlockTiles + tile[i]) * kTileBytes;
        const char* y = x_.ds_pairs + static_cast<long>(u * kBlockTiles + tile[i]) * 2 * kTileBytes;
        four_products(k, k + kBlockTiles * kTileBytes, y, y + kTileBytes);
      }
    }
    touched = 1;
  }

  const Args& a_;
  const op::Attend::Args& f_;
  const Shape shape_;
  const Shared& shared_;
  const Scratch x_;
  const int kv_head_, parts_, part_;
  int tiles_here_ = 0, size_ = 0;
  std::uint32_t keys_touched_ = 0;  // tiles whose d_k and d_v hold something
  float factor_;                    // from q.k to base-2 scores
  Member batch_[kBatch];
  float* pending_[4];  // where C tiles 0..3 must be stored before they are used again
  long pending_stride_ = 64;
  Tiles tiles_;
};

// Phase 2: dq of a row block of a head.
void put_rows(const Args& a, int head, int block, int parts, const Shared& shared) {
  const op::Attend::Args& f = a.forward;
  const int rows = rows_of(a, block);
  for (int u = 0; u * kUnitRows < rows; ++u) {
    const std::int64_t unit = shared.unit_of(a, head, block, u);
    for (int d = 0; d < f.dk; d += 16)
      for (int half = 0; half < 2; ++half) {
        __m512 x[16];
        for (__m512& row : x) row = _mm512_setzero_ps();
        for (int part = 0; part < parts; ++part) {
          if (!shared.touched[part * shared.count + unit]) continue;
          const float* from = shared.d_q_of(part, unit) + (d / 16 * 2 + half) * 256;
          for (int i = 0; i < 16; ++i) x[i] = _mm512_add_ps(x[i], _mm512_load_ps(from + i * 16));
        }
        avx512::transpose(x);
        for (int i = 0; i < 16; ++i) {
          const int r = u * kUnitRows + i / 4 * 8 + half * 4 + i % 4;
          if (r >= rows) continue;
          _mm512_mask_storeu_ps(a.d_q + head * a.d_q_head + (block * f.runs.block_q + r) * a.d_q_row + d,
                                first_lanes(f.dk - d), _mm512_mul_ps(x[i], _mm512_set1_ps(f.scale)));
        }
      }
  }
}

const char* why_not(const Args& a, int workers) {
  if (a.forward.precision != Precision::fast) return "multiplies in bf16 (precision fast)";
  return avx512::grad::why_not(a, workers);
}

int tasks(const Args& a, int phase, int workers) {
  if (phase == 1) return parts_of(a, workers) * a.forward.hkv;
  if (phase == 2 && !a.d_q) return 0;
  return avx512::blocks_of(a.forward.runs) * a.forward.hq;
}

std::size_t scratch_bytes(const Args& a) { return Scratch(Shape(a.forward), nullptr).bytes; }
std::size_t shared_bytes(const Args& a, int workers) { return Shared(a, parts_of(a, workers), nullptr).bytes; }

template <class Tiles>
void run(const Args& a, int phase, int task, int workers, void* scratch, void* memory) {
  const int parts = parts_of(a, workers), hq = a.forward.hq;
  const Shared shared(a, parts, static_cast<char*>(memory));
  if (phase == 0) return pack_rows(a, task % hq, task / hq, shared);
  if (phase == 1) return Task<Tiles>(a, task / parts, parts, task % parts, shared, static_cast<char*>(scratch)).run();
  put_rows(a, task % hq, task / hq, parts, shared);
}

}  // namespace

extern const Kernel<op::AttendGrad> attend_grad, attend_grad_emulated;
const Kernel<op::AttendGrad> attend_grad{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .why_not = why_not,
    .phases = 3,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .shared_bytes = shared_bytes,
    .run = run<HardwareTiles>,
};
const Kernel<op::AttendGrad> attend_grad_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .phases = 3,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .shared_bytes = shared_bytes,
    .run = run<EmulatedTiles>,
};

}  // namespace lacuna::kernel::amx
