// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the side data kernels need beyond vec.h, on AVX-512. Same names as avx2/side_vec.h.
#pragma once

#include "kernel/cpu/avx512/vec.h"
#include "kv/side.h"

namespace lacuna::kernel::avx512 {

using Words = __m512i;  // kW words of 32 bits

// The smaller; b if either is NaN.
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F load_some_bf16(const uint16_t* p, int64_t n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p)), 16));
}

// Bit i: a's lane i is above b's; x where s is above `least`, else 0; sum + x where x is above `least`.
static inline uint32_t bits_above(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline F only_above(F x, F s, F least) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(s, least, _CMP_GT_OQ), x); }
static inline F add_above(F sum, F x, F least) { return _mm512_mask_add_ps(sum, _mm512_cmp_ps_mask(x, least, _CMP_GT_OQ), sum, x); }
// The lanes whose bits are set, side by side; all of a vector is written. Returns how many.
static inline int store_those(float* p, F x, uint32_t bits) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), x));
  return __builtin_popcount(bits);
}

// As halves, rounded down, up, or to the nearest.
static inline void store_down(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
}
static inline void store_up(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC));
}
static inline void store_near(uint16_t* p, F x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
// As bf16, rounded to the nearest, ties to even; NaN as arithmetic makes it stays NaN.
static inline void store_near_bf16(uint16_t* p, F x) {
  const __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}
// Whole numbers of a byte with a sign, four channels side by side at p, p + step, ...
static inline void store_quads(int8_t* p, int64_t step, F x) {
  const __m128i y = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x));
  alignas(16) int32_t quad[4];
  _mm_store_si128(reinterpret_cast<__m128i*>(quad), y);
  for (int i = 0; i < 4; ++i) __builtin_memcpy(p + i * step, quad + i, 4);
}
// Whole numbers 0..15, eight to a word as in Int4Keys: word w of 1 or 2 goes to p + w * step.
static inline void store_nibbles(uint32_t* p, int64_t step, int64_t words, F x) {
  const __m256i at = _mm256_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28);
  __m512i y = _mm512_sllv_epi32(_mm512_cvtps_epi32(x), _mm512_broadcast_i64x4(at));
  y = _mm512_or_si512(y, _mm512_shuffle_epi32(y, _MM_PERM_BADC));
  y = _mm512_or_si512(y, _mm512_shuffle_epi32(y, _MM_PERM_CDAB));
  y = _mm512_or_si512(y, _mm512_shuffle_i64x2(y, y, 0xb1));
  p[0] = static_cast<uint32_t>(_mm512_cvtsi512_si32(y));
  if (words > 1) p[step] = static_cast<uint32_t>(_mm_cvtsi128_si32(_mm512_extracti32x4_epi32(y, 2)));
}

static inline Words load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
// Byte I of every word, which has a sign.
template <int I>
static inline F signed_byte(Words x) {
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(x, 24 - 8 * I), 24));
}
// (Channel I of every word - 8) times nibble_weight(I), exactly: put into the mantissa of 2^23, from which the
// same float without it is taken. The conversion to float would share the port of the products.
template <int I>
static inline F nibble(Words x) {
  constexpr int kAt = int4_shift(I) % 16, kAndOr = 0xea;  // (a & b) | c
  const Words half = int4_shift(I) < 16 ? x : _mm512_srli_epi32(x, 16);
  const Words wide = _mm512_ternarylogic_epi32(half, _mm512_set1_epi32(15 << kAt), _mm512_set1_epi32(0x4b000000), kAndOr);
  return sub(_mm512_castsi512_ps(wide), all(0x1p23f + static_cast<float>(8 << kAt)));
}

}  // namespace lacuna::kernel::avx512
