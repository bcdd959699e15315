// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the side data kernels need beyond vec.h, on AVX2. Same names as avx512/side_vec.h.
#pragma once

#include "kernel/cpu/avx2/vec.h"

namespace lacuna::kernel::avx2 {

using Words = __m256i;  // kW words of 32 bits

// The smaller; b if either is NaN.
static inline F min(F a, F b) { return _mm256_min_ps(a, b); }
static inline F load_some_bf16(const uint16_t* p, int64_t n) {
  uint16_t some[8] = {};
  if (n < 8) {
    for (int i = 0; i < n; ++i) some[i] = p[i];
    p = some;
  }
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

// As halves, rounded down, up, or to the nearest.
static inline void store_down(uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
static inline void store_up(uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}
static inline void store_near(uint16_t* p, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// The nearest whole numbers, ties to even.
static inline void store_whole(uint32_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_cvtps_epi32(x));
}

static inline Words load_words(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
// (Nibble I of every word - 8) times 16^(I % 4), exactly: put into the mantissa of 2^23, from which the
// same float without it is taken. The conversion to float would share the port of the products.
template <int I>
static inline F nibble(Words x) {
  constexpr int kAt = 4 * (I % 4);
  const Words half = I < 4 ? x : _mm256_srli_epi32(x, 16);
  const Words wide = _mm256_or_si256(_mm256_and_si256(half, _mm256_set1_epi32(15 << kAt)), _mm256_set1_epi32(0x4b000000));
  return sub(_mm256_castsi256_ps(wide), all(0x1p23f + static_cast<float>(8 << kAt)));
}

}  // namespace lacuna::kernel::avx2
