// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Sixteen channels of a quantised row (lacuna/dtype.h) as floats, exactly. Same names as avx2/quant.h.
#pragma once

#include <string.h>

#include "kernel/cpu/avx512/vec.h"

namespace lacuna::kernel::avx512 {

static inline F scale_of(const char* block) {
  uint16_t half;
  memcpy(&half, block, sizeof half);
  return _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(half)));
}

// The whole numbers of channels [d, d + 16), d a multiple of 16, from where the row's numbers begin.
static inline F numbers_q8_0(const char* block, int64_t d) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2 + d % 32))));
}
// By a table of the sixteen numbers: it looks at the lowest four bits of an index alone.
static inline F numbers_q4_0(const char* block, int64_t d) {
  const __m512 table = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  const __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2)));
  return _mm512_permutexvar_ps(d % 32 < 16 ? both : _mm512_srli_epi32(both, 4), table);
}

}  // namespace lacuna::kernel::avx512
