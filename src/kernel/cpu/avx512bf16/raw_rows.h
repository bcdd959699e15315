// SPDX-License-Identifier: Apache-2.0
// Tiles of cells from anywhere, and all tiles of a cache without a packed copy, for a few rows: read where they
// lie, in f32. To lay them out as a packed tile first, which many rows would share, costs several times what these
// rows then compute.
//   QK: lanes are 16 channels of one key; sixteen keys' sums are added up over their lanes together.
//   PV: lanes are 16 channels of one key; a row's probability is broadcast to them.
// The machine's own prefetch knows nothing of such cells: values are fetched while keys are read, and the
// next tile's keys while values are.
#pragma once

#include "kernel/cpu/avx512/gather.inc"
#include "kernel/cpu/avx512bf16/micro.h"

namespace lacuna::kernel::avx512bf16 {

alignas(64) static const float kNobody[256] = {};  // a row of zeros of any type

static inline bool in_place(const op::Attend::Args& a) { return a.packed_k.format == PackFormat::none; }
static inline bool is_raw(const op::Attend::Args& a, int64_t tile) { return in_place(a) || tile >= a.runs.first_gathered; }

// The rows of one KV head at the 32 places of a tile.
struct RawRows {
  const char* at[kTileKeys];
  int64_t bytes;  // of a row
};

static inline void rows_of(const op::Attend::Args& a, int64_t tile, const void* base, int64_t head, int64_t cell, Dtype type,
                           int dim, RawRows& to) {
  const bool gathered = tile >= a.runs.first_gathered;
  const int32_t* slots = gathered ? avx512::slots_of(a.runs, tile) : nullptr;
  const char* first = static_cast<const char*>(base) + avx512::raw_bytes(type, head);
  const int64_t step = avx512::raw_bytes(type, cell);
  for (int i = 0; i < kTileKeys; ++i) {
    const int64_t c = gathered ? slots[i] : tile * kTileKeys + i < a.n_cells ? tile * kTileKeys + i : -1;
    to.at[i] = c < 0 ? reinterpret_cast<const char*>(kNobody) : first + c * step;
  }
  to.bytes = avx512::raw_bytes(type, dim);
}
static inline void key_rows(const op::Attend::Args& a, int64_t tile, int kv_head, RawRows& to) {
  rows_of(a, tile, a.k, kv_head * a.k_head, a.k_cell, a.k_type, a.dk, to);
}
static inline void value_rows(const op::Attend::Args& a, int64_t tile, int kv_head, RawRows& to) {
  rows_of(a, tile, a.v, kv_head * a.v_head, a.v_cell, a.v_type, a.dv, to);
}

[[gnu::always_inline]] static inline void fetch_row(const RawRows* x, int i) {
  if (x)
    for (int64_t b = 0; b < x->bytes; b += 64) _mm_prefetch(x->at[i] + b, _MM_HINT_T0);
}

// Channels [d, d + 16) of a row; a mask only where it ends, for a mask costs as much as the load.
template <Dtype T>
[[gnu::always_inline]] static inline __m512 channels(const char* row, int d, int dim) {
  if (avx512::kQuantised<T> || d + 16 > dim) return avx512::channels<T>(row, d, dim);
  if constexpr (T == Dtype::f32) return _mm512_loadu_ps(row + d * 4);
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + d * 2));
  if constexpr (T == Dtype::f16) return _mm512_cvtph_ps(x);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

// Lane i: the sum of x[i] over its lanes.
static inline __m512 sums16(__m512* x) {
  for (int i = 0; i < 8; ++i)
    x[i] = _mm512_add_ps(_mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]), _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]));
  for (int i = 0; i < 4; ++i) {
    const __m512d a = _mm512_castps_pd(x[2 * i]), b = _mm512_castps_pd(x[2 * i + 1]);
    x[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  for (int n = 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i)
      x[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x88), _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xdd));
  return x[0];
}

// s[r][0..31] = q_r . k. q: [R][padded(dk)] f32, zeros past dk.
template <int R, Dtype T>
static void qk_rows(const float* q, const RawRows& k, int dk, float* s, const RawRows* ahead) {
  for (int half = 0; half < kTileKeys; half += 16) {
    __m512 x[R][16];
    for (int i = 0; i < 16; ++i) {
      fetch_row(ahead, half + i);
      __m512 sum[R];
      for (int r = 0; r < R; ++r) sum[r] = _mm512_setzero_ps();
      for (int d = 0; d < dk; d += 16) {
        const __m512 y = channels<T>(k.at[half + i], d, dk);
        for (int r = 0; r < R; ++r) sum[r] = _mm512_fmadd_ps(y, _mm512_load_ps(q + r * padded(dk) + d), sum[r]);
      }
      for (int r = 0; r < R; ++r) x[r][i] = sum[r];
    }
    for (int r = 0; r < R; ++r) _mm512_store_ps(s + r * kStep + half, sums16(x[r]));
  }
}

// acc[r] += p_r . v; p in f32, its rows kStep apart.
template <int R, Dtype T>
static void pv_rows(const float* p, const RawRows& v, int dv, float* acc, int64_t acc_row, const RawRows* ahead) {
  constexpr int C = R <= 5 ? 4 : 2;  // vectors of channels at a time: the registers hold R C sums
  for (int d = 0; d < dv; d += 16 * C, ahead = nullptr) {
    __m512 sum[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        sum[r][c] = d + 16 * c < padded(dv) ? _mm512_loadu_ps(acc + r * acc_row + d + 16 * c) : _mm512_setzero_ps();
    for (int j = 0; j < kTileKeys; ++j) {
      fetch_row(ahead, j);
      __m512 y[C];
      for (int c = 0; c < C; ++c) y[c] = channels<T>(v.at[j], d + 16 * c, dv);
      for (int r = 0; r < R; ++r) {
        const __m512 w = _mm512_set1_ps(p[r * kStep + j]);
        for (int c = 0; c < C; ++c) sum[r][c] = _mm512_fmadd_ps(w, y[c], sum[r][c]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c)
        if (d + 16 * c < padded(dv)) _mm512_storeu_ps(acc + r * acc_row + d + 16 * c, sum[r][c]);
  }
}

}  // namespace lacuna::kernel::avx512bf16
