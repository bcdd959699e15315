// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the side data kernels need beyond vec.h, on AVX-512. Same names as avx2/side_vec.h.
#pragma once

#include "kernel/cpu/avx512/vec.h"

namespace lacuna::kernel::avx512 {

using Words = __m512i;  // kW words of 32 bits

// The smaller; b if either is NaN.
static inline F min(F a, F b) { return _mm512_min_ps(a, b); }
static inline F load_some_bf16(const uint16_t* p, int64_t n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes(n), p)), 16));
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
// The nearest whole numbers, ties to even.
static inline void store_whole(uint32_t* p, F x) { _mm512_storeu_si512(p, _mm512_cvtps_epi32(x)); }

static inline Words load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }
// (Nibble I of every word - 8) times 16^(I % 4), exactly: put into the mantissa of 2^23, from which the
// same float without it is taken. The conversion to float would share the port of the products.
template <int I>
static inline F nibble(Words x) {
  constexpr int kAt = 4 * (I % 4), kAndOr = 0xea;  // (a & b) | c
  const Words half = I < 4 ? x : _mm512_srli_epi32(x, 16);
  const Words wide = _mm512_ternarylogic_epi32(half, _mm512_set1_epi32(15 << kAt), _mm512_set1_epi32(0x4b000000), kAndOr);
  return sub(_mm512_castsi512_ps(wide), all(0x1p23f + static_cast<float>(8 << kAt)));
}

}  // namespace lacuna::kernel::avx512
