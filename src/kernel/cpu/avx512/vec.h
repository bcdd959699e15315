// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The vector of the lane16 kernels on AVX-512: 16 floats. Same names as avx2/vec.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LACUNA_ARCH avx512

namespace lacuna::kernel::avx512 {

using F = __m512;
constexpr int kW = 16;        // floats in an F
constexpr int kRows = 13;     // rows of a register tile: 13 x 2 sums of the 32 registers; 64 rows are 4 x 13 + 12
constexpr int kMostStacked = 192;  // rows of heads that share the widening of a tile, by itself an eighth of a head's time
constexpr int kWide = 4;      // most vectors of channels beside few rows

static inline F zero() { return _mm512_setzero_ps(); }
static inline F all(float x) { return _mm512_set1_ps(x); }
static inline F load(const float* p) { return _mm512_loadu_ps(p); }
static inline F load(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline F load_bf16(const uint16_t* p) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
static inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
static inline F add(F a, F b) { return _mm512_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm512_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
// The larger; b if either is NaN.
static inline F max(F a, F b) { return _mm512_max_ps(a, b); }
static inline float sum(F x) { return _mm512_reduce_add_ps(x); }
// Lane i: the sum of x[i] over its lanes; what was in x is gone.
static inline F sums(F* x) {
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
static inline float largest(F x) { return _mm512_reduce_max_ps(x); }

static inline bool none_above(F x, F bound) { return _mm512_cmp_ps_mask(x, bound, _CMP_NLE_UQ) == 0; }  // NaN is above

// Lane i: bit i of `bits` ? x : other.
static inline F select(uint32_t bits, F x, F other) {
  return _mm512_mask_mov_ps(other, static_cast<__mmask16>(bits), x);
}
// |x| < limit ? a : b
static inline F if_small(F x, float limit, F a, F b) {
  return _mm512_mask_mov_ps(b, _mm512_cmp_ps_mask(_mm512_abs_ps(x), all(limit), _CMP_LT_OQ), a);
}

// n lanes of memory, zeros beyond.
static inline __mmask16 lanes(int64_t n) {
  return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}
static inline F load_some(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
static inline F load_some(const uint16_t* p, int64_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes(n), p));
}
static inline F load_bf16_some(const uint16_t* p, int64_t n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p)), 16));
}
static inline void store_some(float* p, F x, int64_t n) { _mm512_mask_storeu_ps(p, lanes(n), x); }

// Nearest whole number, and p * 2^n for a whole n of any size.
static inline F nearest(F x) { return _mm512_roundscale_ps(x, 0); }
static inline F times_power(F p, F n) { return _mm512_scalef_ps(p, n); }

// 2^x for x > -126, to 2.6e-6: reduce(x) is x - floor(x), and scalef takes the floor itself.
static inline F two_to(F x) {
  const F f = _mm512_reduce_ps(x, 0x09);
  F p = fma(all(1.3534167980e-2f), f, all(5.2011460956e-2f));
  p = fma(p, f, all(2.4144275630e-1f));
  p = fma(p, f, all(6.9300383471e-1f));
  return _mm512_scalef_ps(fma(p, f, all(1.0000002593f)), x);
}

// Sixteen vectors of sixteen 32-bit words become their columns.
static inline void transpose(__m512i* x) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  // x[4 g + c]: column c of every 128-bit lane, rows 4 g .. 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88), b = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd), e = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
    y[c] = _mm512_shuffle_i32x4(a, b, 0x88);
    y[8 + c] = _mm512_shuffle_i32x4(a, b, 0xdd);
    y[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
    y[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}
static inline void transpose(F* x) {
  __m512i y[16];
  for (int i = 0; i < 16; ++i) y[i] = _mm512_castps_si512(x[i]);
  transpose(y);
  for (int i = 0; i < 16; ++i) x[i] = _mm512_castsi512_ps(y[i]);
}

// S numbers, again and again over the lanes.
template <int S>
static inline F repeat(const float* p) {
  if constexpr (S == 1) return all(*p);
  else if constexpr (S == 2) return _mm512_castpd_ps(_mm512_broadcastsd_pd(_mm_load_sd(reinterpret_cast<const double*>(p))));
  else if constexpr (S == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
  else if constexpr (S == 8) return _mm512_broadcast_f32x8(_mm256_loadu_ps(p));
  else return load(p);
}

}  // namespace lacuna::kernel::avx512
