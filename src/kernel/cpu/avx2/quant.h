// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Eight channels of a quantised row (lacuna/dtype.h) as floats, exactly. Same names as avx512/quant.h.
#pragma once

#include <string.h>

#include "kernel/cpu/avx2/vec.h"

namespace lacuna::kernel::avx2 {

static inline F scale_of(const char* block) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  return _mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

// The whole numbers of channels [d, d + 8), d a multiple of 8, from where the row's numbers begin.
static inline F numbers_q8_0(const char* block, int64_t d) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + d % 32))));
}
static inline F numbers_q4_0(const char* block, int64_t d) {
  const __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + 2 + d % 16)));
  const __m256i bits = d % 32 < 16 ? _mm256_and_si256(both, _mm256_set1_epi32(15)) : _mm256_srli_epi32(both, 4);
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(8)));
}

}  // namespace lacuna::kernel::avx2
