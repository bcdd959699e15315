// SPDX-License-Identifier: Apache-2.0
// op attend for few rows: bound by reading the cache once, at the memory's speed.
//   phase 0  task = chunk of a list's tiles, all heads of the list inside: the packed cache is one
//            stream. The rows of a KV head's group share every loaded vector. A cache without a packed
//            copy is read where it lies.
//   phase 1  task = query head: partial (m, l, acc) of the chunks are merged in their order.
// The chunks depend on the lists alone, so neither workers nor their order change the result.
#include "kernel/cpu/avx512/quant.h"
#include "kernel/cpu/avx512/vec.h"
#include "kernel/cpu/avx512bf16/micro.h"
#include "kernel/cpu/lane16/raw_rows.inc"
#include "kernel/kernel.h"

namespace lacuna::kernel::avx512bf16 {
namespace {

using Args = op::Attend::Args;
using avx512::reads_in_place;
using avx512::TileRows;

bool is_raw(const Args& a, int64_t tile) { return reads_in_place(a) || tile >= a.runs.first_gathered; }

constexpr int kMaxRows = 8;
constexpr int kMaxChunks = 64, kMinChunkTiles = 4;         // a list shared by all heads
constexpr int kMaxHeadChunks = 8, kMinHeadChunkTiles = 16;  // several lists

int64_t list_tiles(const Args& a, int head) {
  const int32_t* at = a.runs.list(head, 0);
  int64_t n = 0;
  for (int32_t i = at[0]; i < at[1]; ++i) n += a.runs.runs[i].end - a.runs.runs[i].begin;
  return n;
}

int chunks_for(int64_t tiles, int min_tiles, int most) {
  const int64_t n = (tiles + min_tiles - 1) / min_tiles;
  return n < 1 ? 1 : n > most ? most : static_cast<int>(n);
}

int chunks_of(const Args& a) {
  if (a.runs.heads == 1) return chunks_for(list_tiles(a, 0), kMinChunkTiles, kMaxChunks);
  return chunks_for(tiles_of(a.n_cells), kMinHeadChunkTiles, kMaxHeadChunks);
}

// Partial results: row = head * n_rows + i, dv padded.
struct Partials {
  float *m, *l, *acc;  // [chunks][rows], [chunks][rows], [chunks][rows][dv]
  size_t bytes;
  Partials(const Args& a, void* base) {
    const int64_t rows = static_cast<int64_t>(chunks_of(a)) * a.hq * a.n_rows, vector = (rows + 15) / 16 * 16;
    m = static_cast<float*>(base);  // null: only the size is asked for
    l = m ? m + vector : nullptr;
    acc = l ? l + vector : nullptr;
    bytes = static_cast<size_t>(2 * vector + rows * padded(a.dv)) * 4;
  }
};

// The tiles [begin, end) of a head's list, one after the other.
class Walk {
 public:
  Walk(const Args& a, int head, int64_t begin, int64_t end) : runs_(&a.runs), left_(end - begin) {
    run_ = a.runs.list(head, 0)[0];
    if (left_ <= 0) return;
    int64_t skip = begin;
    for (;; ++run_) {
      const int64_t n = a.runs.runs[run_].end - a.runs.runs[run_].begin;
      if (skip < n) break;
      skip -= n;
    }
    tile_ = a.runs.runs[run_].begin + skip;
  }
  bool done() const { return left_ <= 0; }
  int32_t tile() const { return static_cast<int32_t>(tile_); }
  const uint32_t* words() const {
    const int32_t bits = runs_->runs[run_].bits;
    return bits < 0 ? nullptr : runs_->words + static_cast<int64_t>(bits) * runs_->block_q;
  }
  void step() {
    if (--left_ <= 0) return;
    if (++tile_ == runs_->runs[run_].end) tile_ = runs_->runs[++run_].begin;
  }

 private:
  const TileRuns* runs_;
  int64_t left_, tile_ = 0;
  int32_t run_;
};

// Up to kRows rows of one KV head, as a register tile sees them.
struct Group {
  int kv_head;
  int first;         // row number: head * n_rows + i; the others follow
  const int32_t* q;  // [pairs][rows]
  const float* q32;  // [rows][padded(dk)], for raw tiles
};

struct Scratch {
  int32_t* q;   // [groups][pairs][rows of the group]
  float* s;     // [kRows][kStep]
  uint16_t* p;  // [kRows][kStep]
  float* l;     // [hq * n_rows][16]
  float* acc;   // [dv]
  float* q32;   // [hq * n_rows][padded(dk)]; null without raw tiles
  size_t bytes;
  Scratch(const Args& a, void* base) {
    char* const at = static_cast<char*>(base);  // null: only the size is asked for
    int64_t used = 0;
    const int64_t rows = static_cast<int64_t>(a.hq) * a.n_rows;
    const auto take = [&](int64_t n) {
      char* here = at ? at + used : nullptr;
      used += (n + 63) / 64 * 64;
      return here;
    };
    s = reinterpret_cast<float*>(take(kRows * kStep * 4));
    p = reinterpret_cast<uint16_t*>(take(kRows * kStep * 2));
    l = reinterpret_cast<float*>(take(rows * 64));
    acc = reinterpret_cast<float*>(take(padded(a.dv) * 4));
    q = reinterpret_cast<int32_t*>(take(rows * padded(a.dk) * 2));
    q32 = a.runs.slots || reads_in_place(a) ? reinterpret_cast<float*>(take(rows * padded(a.dk) * 4)) : nullptr;
    bytes = static_cast<size_t>(used);
  }
};

// Rows of the register tile that starts at row r: up to kRows, all of one KV head.
int group_rows(const Args& a, int r, int end) {
  const int per_kv_head = a.hq / a.hkv * a.n_rows;
  return least(kRows, least(end, (r / per_kv_head + 1) * per_kv_head) - r);
}

// One row, every pair `rows` apart; and as it is.
void load_query(const Args& a, int row, bool negate, int32_t* to, int rows, float* q32) {
  const float* q = a.q + row / a.n_rows * a.q_head + row % a.n_rows * a.q_row;
  const __m512 flip = _mm512_set1_ps(negate ? -1.0f : 1.0f);
  for (int d = 0; d < padded(a.dk); d += 16) {
    const int left = a.dk - d;
    const __mmask16 in = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
    alignas(32) int32_t pair[8];
    const __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(in, q + d), flip);
    if (q32) _mm512_store_ps(q32 + d, x);
    const __m256bh y = _mm512_cvtneps_pbh(x);
    _mm256_store_si256(reinterpret_cast<__m256i*>(pair), reinterpret_cast<__m256i>(y));
    for (int i = 0; i < 8; ++i) to[(d / 2 + i) * rows] = pair[i];
  }
}

// The blocks of one tile and the keys that follow. V is fetched from memory while K is used, the next
// K while V is used: half a tile ahead beats a whole one by a fifth (docs/decisions/010).
struct Blocks {
  const char *k, *v, *next_k;
  int32_t tile;
  const uint32_t* words;
};

template <int R>
void attend_tile(const Args& a, const Group& g, const Blocks& b, float scale, float unit, float* m, float* acc, Scratch& x) {
  const int64_t dv = padded(a.dv);
  qk_tile<R, true>(g.q, b.k, padded(a.dk) / 2, x.s, b.v);
  for (int r = 0; r < R; ++r) {
    const int row = g.first + r;
    const uint32_t visible = b.words ? b.words[row % a.n_rows] : ~0u;
    float* s = x.s + r * kStep;
    if (!raw_scores(a)) finish_scores(a, row / a.n_rows, row % a.n_rows, scale, &b.tile, 1, s);
    softmax_step(s, &visible, 1, unit, dv, m[row], x.l + row * 16, acc + row * dv, x.p + r * kStep);
  }
  for (int64_t d = 0; d < dv; d += 32)
    pv_tiles<R, 2, true>(x.p, &b.v, d * 64, 1, acc + g.first * dv + d, dv, b.next_k + d * 64);
}

// A raw tile; `next`: the tile and KV head that follow, if that is a raw tile too.
struct Raw {
  int32_t tile, next_tile;
  int next_head;
  const uint32_t* words;
};

template <int R>
void attend_raw(const Args& a, const Group& g, const Raw& b, float scale, float unit, float* m, float* acc, Scratch& x) {
  const int64_t dv = padded(a.dv);
  TileRows keys, values, next;
  avx512::key_rows(a, b.tile, g.kv_head, keys);
  avx512::value_rows(a, b.tile, g.kv_head, values);
  const bool more = b.next_tile >= 0 && is_raw(a, b.next_tile);
  if (more) avx512::key_rows(a, b.next_tile, b.next_head, next);
  avx512::with_type(a.k_type, [&]<Dtype T>() { avx512::qk_rows<R, T>(g.q32, padded(a.dk), keys, a.dk, x.s, kStep, &values); });
  for (int r = 0; r < R; ++r) {
    const int row = g.first + r;
    const uint32_t visible = b.words ? b.words[row % a.n_rows] : ~0u;
    float* s = x.s + r * kStep;
    if (!raw_scores(a)) finish_scores(a, row / a.n_rows, row % a.n_rows, scale, &b.tile, 1, s);
    softmax_step(s, &visible, 1, unit, dv, m[row], x.l + row * 16, acc + row * dv, x.p + r * kStep);
    for (int i = 0; i < kTileKeys; i += 16)
      _mm512_store_ps(s + i, avx512::load_bf16(x.p + r * kStep + i));
  }
  avx512::with_type(a.v_type, [&]<Dtype T>() {
    avx512::pv_rows<R, T>(x.s, kStep, values, a.dv, acc + g.first * dv, dv, more ? &next : nullptr);
  });
}

using AttendTile = void (*)(const Args&, const Group&, const Blocks&, float, float, float*, float*, Scratch&);
constexpr AttendTile kAttendTile[kRows + 1] = {
    nullptr,        attend_tile<1>, attend_tile<2>, attend_tile<3>, attend_tile<4>,
    attend_tile<5>, attend_tile<6>, attend_tile<7>, attend_tile<8>};
using AttendRaw = void (*)(const Args&, const Group&, const Raw&, float, float, float*, float*, Scratch&);
constexpr AttendRaw kAttendRaw[kRows + 1] = {
    nullptr,            attend_raw<1>, attend_raw<2>, attend_raw<3>, attend_raw<4>,
    attend_raw<5>, attend_raw<6>, attend_raw<7>, attend_raw<8>};

void run_chunk(const Args& a, int task, void* scratch, void* shared) {
  const int chunks = chunks_of(a), chunk = task % chunks, list = task / chunks;
  const int group = a.hq / a.hkv;
  const int per_list = a.hq / a.runs.heads, head_begin = list * per_list, head_end = head_begin + per_list;
  const float scale = a.scale < 0 ? -a.scale : a.scale;  // its sign goes into q
  const float unit = raw_scores(a) ? scale * kLog2e : 1.0f;
  const int64_t pairs = padded(a.dk) / 2, dv = padded(a.dv), rows = static_cast<int64_t>(a.hq) * a.n_rows;
  Scratch x(a, scratch);
  Partials out(a, shared);
  float *m = out.m + chunk * rows, *l = out.l + chunk * rows, *acc = out.acc + chunk * rows * dv;

  const int row_begin = head_begin * a.n_rows, row_end = head_end * a.n_rows;
  memset(acc + row_begin * dv, 0, static_cast<size_t>((row_end - row_begin) * dv) * 4);
  memset(x.l, 0, static_cast<size_t>(rows) * 64);
  for (int r = row_begin; r < row_end; ++r) m[r] = kMinusInf;

  const int64_t tiles = list_tiles(a, head_begin);
  Walk walk(a, head_begin, tiles * chunk / chunks, tiles * (chunk + 1) / chunks);
  if (!walk.done())
    for (int r = row_begin, n; r < row_end; r += n) {
      n = group_rows(a, r, row_end);
      for (int i = 0; i < n; ++i) load_query(a, r + i, a.scale < 0, x.q + r * pairs + i, n, x.q32 ? x.q32 + (r + i) * 2 * pairs : nullptr);
    }
  while (!walk.done()) {
    Blocks b;
    b.tile = walk.tile();
    b.words = walk.words();
    walk.step();
    const int32_t next_tile = walk.done() ? b.tile : walk.tile();
    for (int r = row_begin, n; r < row_end; r += n) {
      n = group_rows(a, r, row_end);
      Group g;
      g.kv_head = r / a.n_rows / group;
      g.first = r;
      g.q = x.q + r * pairs;
      g.q32 = x.q32 ? x.q32 + r * 2 * pairs : nullptr;
      const bool last = r + n >= row_end;
      const int next_head = last ? head_begin / group : (r + n) / a.n_rows / group;
      const int32_t following = last ? next_tile : b.tile;
      if (is_raw(a, b.tile)) {
        kAttendRaw[n](a, g, {b.tile, last && walk.done() ? -1 : following, next_head, b.words}, scale, unit, m, acc, x);
        continue;
      }
      b.k = block_of(a.packed_k, b.tile, g.kv_head);
      b.v = block_of(a.packed_v, b.tile, g.kv_head);
      b.next_k = !is_raw(a, following) ? block_of(a.packed_k, following, next_head) : b.k;
      kAttendTile[n](a, g, b, scale, unit, m, acc, x);
    }
  }
  for (int r = row_begin; r < row_end; ++r) {
    l[r] = _mm512_reduce_add_ps(_mm512_loadu_ps(x.l + r * 16));
    if (m[r] != kMinusInf) m[r] *= unit * kLn2;
  }
}

void merge(const Args& a, int head, void* scratch, void* shared) {
  const int chunks = chunks_of(a);
  const int64_t dv = padded(a.dv), rows = static_cast<int64_t>(a.hq) * a.n_rows;
  Scratch x(a, scratch);
  const Partials part(a, shared);
  for (int i = 0; i < a.n_rows; ++i) {
    const int64_t row = static_cast<int64_t>(head) * a.n_rows + i;
    float m = a.resume.m ? a.resume.m[row] : kMinusInf;
    for (int c = 0; c < chunks; ++c)
      if (part.m[c * rows + row] > m) m = part.m[c * rows + row];
    float l = 0;
    memset(x.acc, 0, static_cast<size_t>(dv) * 4);
    if (a.resume.m && a.resume.l[row] != 0) {
      const float w = exp2_exact((a.resume.m[row] - m) * kLog2e);
      l = a.resume.l[row] * w;
      for (int d = 0; d < a.dv; ++d) x.acc[d] = a.resume.acc[row * a.dv + d] * w;
    }
    for (int c = 0; c < chunks; ++c) {
      const int64_t at = c * rows + row;
      if (part.l[at] == 0) continue;
      // m = -inf with l != 0: every score was NaN, and so is l.
      const float w = part.m[at] == kMinusInf ? 1.0f : exp2_exact((part.m[at] - m) * kLog2e);
      l += part.l[at] * w;
      const __m512 by = _mm512_set1_ps(w);
      for (int64_t d = 0; d < dv; d += 16)
        _mm512_storeu_ps(x.acc + d, _mm512_fmadd_ps(_mm512_loadu_ps(part.acc + at * dv + d), by, _mm512_loadu_ps(x.acc + d)));
    }
    finish_row(a, head, i, m, l, x.acc);
  }
}

const char* why_not(const Args& a, int) {
  if (a.n_rows > kMaxRows) return "more than 8 query rows: the kernel for many rows is faster";
  if (a.n_rows > a.runs.block_q) return "the rows are cut into several blocks";
  if (a.pv_skip) return "tiles left out by their weight: a kernel for many rows does that";
  return why_not_common(a, reads_in_place(a));
}

int tasks(const Args& a, int phase, int) { return phase == 0 ? chunks_of(a) * a.runs.heads : a.hq; }
size_t scratch_bytes(const Args& a) { return Scratch(a, nullptr).bytes; }
size_t shared_bytes(const Args& a, int) { return Partials(a, nullptr).bytes; }

void run(const Args& a, int phase, int task, int, void* scratch, void* shared) {
  if (phase == 0) run_chunk(a, task, scratch, shared);
  else merge(a, task, scratch, shared);
}

}  // namespace

extern const Kernel<op::Attend> attend_decode;
const Kernel<op::Attend> attend_decode{
    .name = "cpu.avx512bf16.decode",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .shared_bytes = shared_bytes,
    .run = run,
};

}  // namespace lacuna::kernel::avx512bf16
