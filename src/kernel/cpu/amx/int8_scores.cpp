// SPDX-License-Identifier: Apache-2.0
// op int8_scores on AMX, for many queries: products of bytes by tiles, whose second operands are the side data as
// they lie.
//   q     ~ unit w,  unit = the row's largest |q_d| / 127
//   score = unit scale (w . n)  +  q . centre
// q . centre is the same for a tile's 32 cells. It is made for 16 tiles and 32 queries at a time by products of bf16:
// centres are bf16, a query is the sum of three such numbers. They are a fifth of all products at most.
//
// A KV head's queries are numbered row by row, the heads of its group side by side. A task has some blocks of 32 of
// them and passes each by 16 tiles at a time: tiles and queries stay in the second cache, and a row of scores is
// written in pieces long enough to be foreseen.
#include "kernel/cpu/amx/operands.h"
#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/avx512/side_vec.h"

#include "kernel/cpu/lane16/side_scores.inc"

namespace lacuna::kernel::amx {
namespace {

using Args = op::Int8Scores::Args;
using Of = avx512::scoring::OfInt8;

constexpr int kSteps = 127;
constexpr float kLeastUnit = 0x1p-100f;  // queries below are as good as zero, and their inverse would overflow
constexpr int kQueries = 2 * kTileRows;  // of a block
constexpr int kMostBlocks = 8;           // blocks of a task
constexpr int kTaskTiles = 64;
constexpr int kTogether = kTileRows;  // tiles whose q . centre is made at a time
constexpr int kParts = 3;             // bf16 numbers of a query's number
constexpr int kFewest = 6;           // queries of a KV head; with fewer, tiles are too empty to beat vpdpbusd
// Scores of a call beyond this many bytes are in no cache when they are read: they are written past all of them.
constexpr std::int64_t kCached = std::int64_t{8} << 20;
constexpr float kInfinity = __builtin_inff();

struct Shape {
  int heads, queries;          // of a KV head
  int byte_tiles, pair_tiles;  // operands of a row: by 64 bytes, by 32 bf16
  explicit Shape(const Args& a)
      : heads(a.hq / a.hkv),
        queries(heads * a.n_rows),
        byte_tiles(ceil_div(a.dk, 64)),
        pair_tiles(ceil_div(a.dk, kTileDepth)) {}
  int blocks() const { return ceil_div(queries, kQueries); }
  int pieces() const { return ceil_div(blocks(), kMostBlocks); }
  // Bytes of a block's operands.
  std::size_t numbers() const { return 2 * static_cast<std::size_t>(byte_tiles) * kTileBytes; }
  std::size_t parts() const { return 2 * static_cast<std::size_t>(kParts * pair_tiles) * kTileBytes; }
};

// 32 queries of a task.
struct Block {
  int live;
  char* numbers;  // A tiles [2][byte_tiles]
  char* parts;    // B tiles [2][kParts][pair_tiles] of [16 channel pairs][16 queries][2]
  float* unit;    // [32]
  float* middle;  // [16 tiles][32]: q . centre
  const std::uint32_t* visible[kQueries];
  float* score[kQueries];
};

// What a worker has; C tiles of two products, centres as A tiles [pair_tiles], and the blocks.
struct Scratch {
  std::int32_t* c[2];
  char* centres;
  Block block[kMostBlocks];
  std::size_t bytes = 0;
  Scratch(const Shape& x, void* base) {
    const auto take = [&](std::size_t n) {
      char* p = base ? static_cast<char*>(base) + bytes : nullptr;
      bytes += n;
      return p;
    };
    for (auto& p : c) p = reinterpret_cast<std::int32_t*>(take(4 * kTileBytes));
    centres = take(static_cast<std::size_t>(x.pair_tiles) * kTileBytes);
    for (Block& b : block) {
      b.numbers = take(x.numbers());
      b.parts = take(x.parts());
      b.unit = reinterpret_cast<float*>(take(kQueries * 4));
      b.middle = reinterpret_cast<float*>(take(kTogether * kQueries * 4));
    }
  }
};

// Sixteen queries as operands: bytes, and the parts of their numbers, queries side by side. Null queries are zeros.
void put_queries(const float* const* q, int dk, const Shape& x, char* numbers, char* parts, float* unit) {
  for (int r = 0; r < kTileRows; ++r) {
    __m512 most = _mm512_setzero_ps(), odd = most;  // odd: NaN where the query is no number
    for (int d = 0; q[r] && d < dk; d += 16) {
      const __m512 y = _mm512_maskz_loadu_ps(first_lanes(dk - d), q[r] + d);
      most = _mm512_max_ps(_mm512_abs_ps(y), most);
      odd = _mm512_add_ps(odd, _mm512_sub_ps(y, y));
    }
    float size = _mm512_reduce_max_ps(most) / kSteps;
    if (!(size >= kLeastUnit)) size = 0;
    const __m512 inverse = _mm512_set1_ps(size > 0 && size < kInfinity ? 1.0f / size : 0.0f);
    unit[r] = size + _mm512_reduce_add_ps(odd);
    for (int d = 0; d < x.byte_tiles * 64; d += 16) {
      const __m512 y = q[r] ? _mm512_maskz_loadu_ps(first_lanes(dk - d), q[r] + d) : _mm512_setzero_ps();
      const __m128i w = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(y, inverse)));
      _mm_store_si128(reinterpret_cast<__m128i*>(numbers + d / 64 * kTileBytes + r * 64 + d % 64), w);
    }
  }
  for (int t = 0; t < x.pair_tiles; ++t) {
    __m512 low[kTileRows], high[kTileRows];  // what is left of channels [32 t, 32 t + 16) and of the next 16
    for (int r = 0; r < kTileRows; ++r) {
      const int left = q[r] ? dk - t * kTileDepth : 0;
      low[r] = _mm512_maskz_loadu_ps(first_lanes(left), q[r] ? q[r] + t * kTileDepth : nullptr);
      high[r] = _mm512_maskz_loadu_ps(first_lanes(left - 16), q[r] ? q[r] + t * kTileDepth + 16 : nullptr);
    }
    for (int p = 0; p < kParts; ++p) {
      __m512i rows[kTileRows];
      for (int r = 0; r < kTileRows; ++r) {
        const __m512i y = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high[r], low[r]));
        rows[r] = y;
        low[r] = _mm512_sub_ps(
            low[r], _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(y)), 16)));
        high[r] = _mm512_sub_ps(high[r], _mm512_castsi512_ps(_mm512_slli_epi32(
                                             _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(y, 1)), 16)));
      }
      avx512::transpose(rows);
      for (int i = 0; i < kTileRows; ++i)
        _mm512_store_si512(parts + (p * x.pair_tiles + t) * kTileBytes + i * 64, rows[i]);
    }
  }
}

void put_block(const Args& a, const Shape& x, int kv_head, int first, Block& b) {
  b.live = x.queries - first < kQueries ? x.queries - first : kQueries;
  const float* q[kQueries] = {};
  for (int r = 0; r < b.live; ++r) {
    const int head = kv_head * x.heads + (first + r) % x.heads, row = (first + r) / x.heads;
    q[r] = a.q + head * a.q_head + row * a.q_row;
    b.visible[r] = a.visible ? a.visible + head * a.visible_head + row * a.visible_row : nullptr;
    b.score[r] = a.score + head * a.score_head + row * a.score_row;
  }
  for (int half = 0; half < 2; ++half)
    put_queries(q + half * kTileRows, a.dk, x, b.numbers + half * x.numbers() / 2, b.parts + half * x.parts() / 2,
                b.unit + half * kTileRows);
}

// b.middle for up to 16 tiles, whose centres lie in `centres`.
template <class Tiles>
void put_middle(Tiles& tiles, const Shape& x, const char* centres, const Block& b) {
  tiles.template zero<0>();
  tiles.template zero<1>();
  for (int t = 0; t < x.pair_tiles; ++t) {
    tiles.template load<4>(centres + t * kTileBytes, 64);
    for (int p = 0; p < kParts; ++p) {
      const char* part = b.parts + (p * x.pair_tiles + t) * kTileBytes;
      tiles.template load<6>(part, 64);
      tiles.template multiply_add<0, 4, 6>();
      tiles.template load<7>(part + x.parts() / 2, 64);
      tiles.template multiply_add<1, 4, 7>();
    }
  }
  tiles.template store<0>(b.middle, kQueries * 4);
  tiles.template store<1>(b.middle + kTileRows, kQueries * 4);
}

// Tiles 0..3: w . n of 32 queries and a tile's 32 cells.
template <class Tiles>
[[gnu::always_inline]] inline void products(Tiles& tiles, const Shape& x, const char* upper, const char* keys,
                                            std::int64_t half) {
  tiles.template zero<0>();
  tiles.template zero<1>();
  tiles.template zero<2>();
  tiles.template zero<3>();
  const char* lower = upper + x.numbers() / 2;
  for (long at = 0; at < static_cast<long>(x.byte_tiles) * kTileBytes; at += kTileBytes) {
    tiles.template load<4>(upper + at, 64);
    tiles.template load<6>(keys + at, 64);
    tiles.template multiply_add_bytes<0, 4, 6>();
    tiles.template load<7>(keys + half + at, 64);
    tiles.template multiply_add_bytes<1, 4, 7>();
    tiles.template load<5>(lower + at, 64);
    tiles.template multiply_add_bytes<2, 5, 6>();
    tiles.template multiply_add_bytes<3, 5, 7>();
  }
}

// Whether scores may be written by streaming stores, which take whole lines.
bool streams(const Args& a) {
  const auto lines =
      reinterpret_cast<std::uintptr_t>(a.score) | static_cast<std::uintptr_t>((a.score_head | a.score_row) * 4);
  return lines % 64 == 0 && std::int64_t{4} * a.hq * a.n_rows * a.n_cells > kCached;
}

// From w . n to scores: those of a block's queries and of one tile.
struct Finish {
  const Block* b = nullptr;
  const std::int32_t* c;  // [32][32]
  const float *scales, *middle;
  std::int64_t tile;
  const std::uint32_t* words;  // [32], or null: all are seen
  bool stream;

  [[gnu::always_inline]] void run() const {
    const __m512 s0 = _mm512_loadu_ps(scales), s1 = _mm512_loadu_ps(scales + 16);
    if (words)
      each(s0, s1, [](float* to, __m512 y, __m512 z, std::uint32_t word) {
        const __m512 none = _mm512_set1_ps(-kInfinity);
        _mm512_storeu_ps(to, _mm512_mask_mov_ps(none, static_cast<__mmask16>(word), y));
        _mm512_storeu_ps(to + 16, _mm512_mask_mov_ps(none, static_cast<__mmask16>(word >> 16), z));
      });
    else if (stream)
      each(s0, s1, [](float* to, __m512 y, __m512 z, std::uint32_t) {
        _mm512_stream_ps(to, y);
        _mm512_stream_ps(to + 16, z);
      });
    else
      each(s0, s1, [](float* to, __m512 y, __m512 z, std::uint32_t) {
        _mm512_storeu_ps(to, y);
        _mm512_storeu_ps(to + 16, z);
      });
  }

 private:
  template <class Put>
  [[gnu::always_inline]] void each(__m512 s0, __m512 s1, const Put& put) const {
    const __m512 most = _mm512_set1_ps(kInfinity);  // the smaller of a NaN and it
    for (int r = 0; r < b->live; ++r) {
      const __m512 unit = _mm512_set1_ps(b->unit[r]), common = _mm512_set1_ps(middle[r]);
      const __m512 y =
          _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(c + r * 32)), s0), unit, common);
      const __m512 z =
          _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(c + r * 32 + 16)), s1), unit, common);
      put(b->score[r] + tile * kTileKeys, _mm512_min_ps(y, most), _mm512_min_ps(z, most), words ? words[r] : 0);
    }
  }
};

const char* why_not(const Args& a, int) {
  if (!a.round_q) return "rounds the queries";
  return a.hq / a.hkv * a.n_rows < kFewest ? "fewer than 6 queries of a KV head" : nullptr;
}

int tasks(const Args& a, int, int) {
  std::int64_t most = 0;
  for (int g = 0; g < a.hkv; ++g) most = Of::tiles(a, g) > most ? Of::tiles(a, g) : most;
  return static_cast<int>(ceil_div(most, kTaskTiles)) * Shape(a).pieces() * a.hkv;
}

std::size_t scratch_bytes(const Args& a) { return Scratch(Shape(a), nullptr).bytes; }

template <class Tiles>
void run(const Args& a, int, int task, int, void* scratch, void*) {
  const Shape x(a);
  const int kv_head = task % a.hkv, piece = task / a.hkv % x.pieces();
  const std::int64_t begin = static_cast<std::int64_t>(task / a.hkv / x.pieces()) * kTaskTiles,
                     n = Of::tiles(a, kv_head);
  const std::int64_t end = begin + kTaskTiles < n ? begin + kTaskTiles : n;
  if (begin >= end) return;
  Scratch s(x, scratch);
  int n_blocks = 0;
  for (int first = piece * kMostBlocks * kQueries; n_blocks < kMostBlocks && first < x.queries; first += kQueries)
    put_block(a, x, kv_head, first, s.block[n_blocks++]);

  const std::int64_t bytes = Of::tile_bytes(a), half = static_cast<std::int64_t>(Of::dims(a)) * 16;
  const auto block_of = [&](std::int64_t j) {
    return static_cast<const char*>(a.keys.data) + (Of::tile_at(a, kv_head, j) * a.hkv + kv_head) * bytes;
  };
  const bool stream = streams(a);
  Tiles tiles;
  Finish pending;  // its C tiles are stored
  std::uint32_t words[2][kQueries];
  int turn = 0;
  for (std::int64_t j0 = begin; j0 < end; j0 += kTogether) {
    const int here = static_cast<int>(end - j0 < kTogether ? end - j0 : kTogether);
    for (int i = 0; i < here; ++i) {
      const char* centre = block_of(j0 + i) + 2 * half + kTileKeys * 4;
      for (int t = 0; t < x.pair_tiles; ++t)
        _mm512_store_si512(s.centres + t * kTileBytes + i * 64, _mm512_loadu_si512(centre + t * 64));
    }
    for (Block* b = s.block; b < s.block + n_blocks; ++b) {
      if (pending.b == b) {  // its middle goes
        pending.run();
        pending.b = nullptr;
      }
      put_middle(tiles, x, s.centres, *b);
      for (int i = 0; i < here; ++i) {
        const std::int64_t t = Of::tile_at(a, kv_head, j0 + i);
        const char* keys = block_of(j0 + i);
        if (b == s.block && j0 + i + 1 < end) {
          const char* next = block_of(j0 + i + 1);
          for (std::int64_t line = 0; line < bytes; line += 64) _mm_prefetch(next + line, _MM_HINT_T0);
        }
        std::uint32_t any = 0, all = ~0u;
        for (int r = 0; r < b->live; ++r) {
          const bool same = r > 0 && b->visible[r] == b->visible[r - 1];
          words[turn][r] = same ? words[turn][r - 1] : Of::word(a, b->visible[r], t);
          any |= words[turn][r];
          all &= words[turn][r];
        }
        if (!any) {
          for (int r = 0; r < b->live; ++r) {
            _mm512_storeu_ps(b->score[r] + t * kTileKeys, _mm512_set1_ps(-kInfinity));
            _mm512_storeu_ps(b->score[r] + t * kTileKeys + 16, _mm512_set1_ps(-kInfinity));
          }
          continue;
        }
        // Products go on while the vectors finish those of the tile before.
        products(tiles, x, b->numbers, keys, half);
        if (pending.b) pending.run();
        store_2x2(tiles, reinterpret_cast<float*>(s.c[turn]), kTileKeys);
        pending = {b,
                   s.c[turn],
                   reinterpret_cast<const float*>(keys + 2 * half),
                   b->middle + i * kQueries,
                   t,
                   all == ~0u ? nullptr : words[turn],
                   stream};
        turn ^= 1;
      }
    }
  }
  if (pending.b) pending.run();
  if (stream) _mm_sfence();
}

}  // namespace

extern const Kernel<op::Int8Scores> int8_scores, int8_scores_emulated;
const Kernel<op::Int8Scores> int8_scores{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16 | kAmxInt8,
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run<HardwareTiles>,
};
const Kernel<op::Int8Scores> int8_scores_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run<EmulatedTiles>,
};

}  // namespace lacuna::kernel::amx
