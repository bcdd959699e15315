// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The vector of the lane16 kernels on AVX2 with FMA and F16C: 8 floats. Same names as avx512/vec.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define LACUNA_ARCH avx2

namespace lacuna::kernel::avx2 {

using F = __m256;
constexpr int kW = 8;        // floats in an F
constexpr int kRows = 6;     // rows of a register tile: 6 x 2 sums of the 16 registers
constexpr int kMostStacked = 0;  // sharing the widening of a tile by several heads gained nothing here
constexpr int kWide = 4;     // most vectors of channels beside few rows

static inline F zero() { return _mm256_setzero_ps(); }
static inline F all(float x) { return _mm256_set1_ps(x); }
static inline F load(const float* p) { return _mm256_loadu_ps(p); }
static inline F load(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline F load_bf16(const uint16_t* p) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
static inline void store(float* p, F x) { _mm256_storeu_ps(p, x); }
static inline F add(F a, F b) { return _mm256_add_ps(a, b); }
static inline F sub(F a, F b) { return _mm256_sub_ps(a, b); }
static inline F mul(F a, F b) { return _mm256_mul_ps(a, b); }
static inline F div(F a, F b) { return _mm256_div_ps(a, b); }
static inline F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
// The larger; b if either is NaN.
static inline F max(F a, F b) { return _mm256_max_ps(a, b); }
static inline float sum(F x) {
  __m128 y = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_add_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_add_ss(y, _mm_movehdup_ps(y)));
}
// Lane i: the sum of x[i] over its lanes; what was in x is gone.
static inline F sums(F* x) {
  for (int i = 0; i < 4; ++i) x[i] = _mm256_hadd_ps(x[2 * i], x[2 * i + 1]);
  for (int i = 0; i < 2; ++i) x[i] = _mm256_hadd_ps(x[2 * i], x[2 * i + 1]);
  return _mm256_add_ps(_mm256_permute2f128_ps(x[0], x[1], 0x20), _mm256_permute2f128_ps(x[0], x[1], 0x31));
}
static inline float largest(F x) {
  __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  y = _mm_max_ps(y, _mm_movehl_ps(y, y));
  return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

static inline bool none_above(F x, F bound) { return _mm256_movemask_ps(_mm256_cmp_ps(x, bound, _CMP_NLE_UQ)) == 0; }  // NaN is above

// Lane i: bit i of `bits` ? x : other.
static inline F select(uint32_t bits, F x, F other) {
  const __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), lane), lane);
  return _mm256_blendv_ps(other, x, _mm256_castsi256_ps(on));
}
// |x| < limit ? a : b
static inline F if_small(F x, float limit, F a, F b) {
  const F size = _mm256_andnot_ps(all(-0.0f), x);
  return _mm256_blendv_ps(b, a, _mm256_cmp_ps(size, all(limit), _CMP_LT_OQ));
}

// n lanes of memory, zeros beyond; 0 <= n.
static inline __m256i lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline F load_some(const float* p, int64_t n) { return _mm256_maskload_ps(p, lanes(n)); }
static inline F load_some(const uint16_t* p, int64_t n) {
  if (n >= 8) return load(p);
  uint16_t some[8] = {};
  for (int i = 0; i < n; ++i) some[i] = p[i];
  return load(some);
}
static inline F load_bf16_some(const uint16_t* p, int64_t n) {
  if (n >= 8) return load_bf16(p);
  uint16_t some[8] = {};
  for (int i = 0; i < n; ++i) some[i] = p[i];
  return load_bf16(some);
}
static inline void store_some(float* p, F x, int64_t n) { _mm256_maskstore_ps(p, lanes(n), x); }

// Nearest whole number, and p * 2^n for a whole n: 0 from n = -127 down, finite from 127 up.
static inline F nearest(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline F times_power(F p, F n) {
  const F in_range = _mm256_min_ps(_mm256_max_ps(n, all(-127.0f)), all(127.0f));
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(in_range), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(p, _mm256_castsi256_ps(bits));
}

// 2^x for -126 < x < 127, to 2.8e-6.
static inline F two_to(F x) {
  const F whole = nearest(x), f = sub(x, whole);
  F p = fma(all(9.5828531689e-3f), f, all(5.5906425036e-2f));
  p = fma(p, f, all(2.4024098611e-1f));
  p = fma(p, f, all(6.9312419337e-1f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(fma(p, f, all(1.0f)), _mm256_castsi256_ps(power));
}

// Eight vectors of eight become their columns.
static inline void transpose(F* x) {
  F y[8];
  for (int i = 0; i < 8; i += 2) {
    y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  F z[8];  // z[4 j + c]: columns c and c + 4 of rows 4 j .. 4 j + 3
  for (int j = 0; j < 2; ++j)
    for (int c = 0; c < 2; ++c) {
      z[4 * j + 2 * c] = _mm256_shuffle_ps(y[4 * j + c], y[4 * j + c + 2], 0x44);
      z[4 * j + 2 * c + 1] = _mm256_shuffle_ps(y[4 * j + c], y[4 * j + c + 2], 0xee);
    }
  for (int c = 0; c < 4; ++c) {
    x[c] = _mm256_permute2f128_ps(z[c], z[4 + c], 0x20);
    x[c + 4] = _mm256_permute2f128_ps(z[c], z[4 + c], 0x31);
  }
}

// S numbers, again and again over the lanes; of 16 the first 8 (the caller steps to the others).
template <int S>
static inline F repeat(const float* p) {
  if constexpr (S == 1) return all(*p);
  else if constexpr (S == 2) return _mm256_castpd_ps(_mm256_broadcast_sd(reinterpret_cast<const double*>(p)));
  else if constexpr (S == 4) return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p));
  else return load(p);
}

}  // namespace lacuna::kernel::avx2
