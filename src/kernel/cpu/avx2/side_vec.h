// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the side data kernels need beyond vec.h, on AVX2. Same names as avx512/side_vec.h.
#pragma once

#include "kernel/cpu/avx2/vec.h"
#include "kv/side.h"

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

// Bit i: a's lane i is above b's; x where s is above `least`, else 0; sum + x where x is above `least`.
static inline uint32_t bits_above(F a, F b) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}
static inline F only_above(F x, F s, F least) { return _mm256_and_ps(_mm256_cmp_ps(s, least, _CMP_GT_OQ), x); }
static inline F add_above(F sum, F x, F least) { return add(sum, only_above(x, x, least)); }
// The lanes whose bits are set, side by side. Returns how many.
static inline int store_those(float* p, F x, uint32_t bits) {
  float lane[kW];
  store(lane, x);
  int n = 0;
  for (; bits; bits &= bits - 1) p[n++] = lane[__builtin_ctz(bits)];
  return n;
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
// As bf16, rounded to the nearest, ties to even; NaN as arithmetic makes it stays NaN.
static inline void store_near_bf16(uint16_t* p, F x) {
  const __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(_mm256_castsi256_si128(up), _mm256_extracti128_si256(up, 1)));
}
// Whole numbers of a byte with a sign, four channels side by side at p and p + step.
static inline void store_quads(int8_t* p, int64_t step, F x) {
  const __m256i whole = _mm256_cvtps_epi32(x);
  const __m128i y = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)), z = _mm_packs_epi16(y, y);
  const int32_t first = _mm_cvtsi128_si32(z), second = _mm_extract_epi32(z, 1);
  __builtin_memcpy(p, &first, 4);
  __builtin_memcpy(p + step, &second, 4);
}
// Whole numbers 0..15, eight to a word as in Int4Keys.
static inline void store_nibbles(uint32_t* p, int64_t, int64_t, F x) {
  const __m256i at = _mm256_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28);
  __m256i y = _mm256_sllv_epi32(_mm256_cvtps_epi32(x), at);
  y = _mm256_or_si256(y, _mm256_shuffle_epi32(y, 0x4e));
  y = _mm256_or_si256(y, _mm256_shuffle_epi32(y, 0xb1));
  p[0] = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_or_si128(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1))));
}

static inline Words load_words(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
// Byte I of every word, which has a sign.
template <int I>
static inline F signed_byte(Words x) {
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(x, 24 - 8 * I), 24));
}
// (Channel I of every word - 8) times nibble_weight(I), exactly: put into the mantissa of 2^23, from which the
// same float without it is taken. The conversion to float would share the port of the products.
template <int I>
static inline F nibble(Words x) {
  constexpr int kAt = int4_shift(I) % 16;
  const Words half = int4_shift(I) < 16 ? x : _mm256_srli_epi32(x, 16);
  const Words wide = _mm256_or_si256(_mm256_and_si256(half, _mm256_set1_epi32(15 << kAt)), _mm256_set1_epi32(0x4b000000));
  return sub(_mm256_castsi256_ps(wide), all(0x1p23f + static_cast<float>(8 << kAt)));
}

}  // namespace lacuna::kernel::avx2
