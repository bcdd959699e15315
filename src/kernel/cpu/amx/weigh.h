// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// From scores to softmax weights, in base 2: weight = 2^(score * factor - top).
//
// A row's `top` need not be the largest logit so far: it may lag behind it by kLag, so that it moves
// rarely. Sums are of the weights as rounded to bf16: the error of a weight that outweighs all others
// then cancels in acc / sum.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lacuna::kernel::amx {

constexpr float kLog2e = 1.44269504f;
constexpr float kLn2 = 0.693147181f;
constexpr float kLag = 8.0f;  // weights stay below 2^8: bf16 and f32 have room for far more

// 2^x. Coefficients: least largest relative error on [0, 1), 1.0e-4, where rounding a weight to bf16
// costs up to 3.9e-3. reduce(x) is x - floor(x), and 0 for an infinity; scalef(p, x) is p * 2^floor(x);
// so 2^-inf is 0 and NaN stays NaN.
[[gnu::always_inline]] static inline __m512 exp2_fast(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);  // to minus infinity, no exception
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.0789672571f), f, _mm512_set1_ps(0.224693156f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.696324771f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.999900288f));
  return _mm512_scalef_ps(p, x);
}

// The same to 1.0e-7, for what is computed once per row or is not rounded to bf16 afterwards.
[[gnu::always_inline]] static inline __m512 exp2_fine(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x09);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.00189375406f), f, _mm512_set1_ps(0.00894959042f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.0558603371f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.240141818f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.69315449f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// tanh(x) = 1 - 2 / (e^2x + 1), which is right at both infinities too.
[[gnu::always_inline]] static inline __m512 tanh16(__m512 x) {
  const __m512 e = exp2_fine(_mm512_mul_ps(x, _mm512_set1_ps(2 * kLog2e)));
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one)));
}

[[gnu::always_inline]] static inline float exp2_of(float x) {
  return _mm512_cvtss_f32(exp2_fine(_mm512_set1_ps(x)));
}

// Weights of 32 scores of a row at a time, and their sum in 16 parts.
struct Weigher {
  __m512 factor;
  __m512 highest = _mm512_setzero_ps();  // the largest logit met, relative to its row's top

  [[gnu::always_inline]] explicit Weigher(float f) : factor(_mm512_set1_ps(f)) {}
  [[gnu::always_inline]] void row(const float* s, float top, std::uint16_t* weights, const float* sum, float* sum_after) {
    const __m512 t = _mm512_set1_ps(top);
    const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(s), factor, t);
    const __m512 y = _mm512_fmsub_ps(_mm512_load_ps(s + 16), factor, t);
    highest = _mm512_max_ps(_mm512_max_ps(x, y), highest);  // in this order a NaN never gets in
    const __m512bh p = _mm512_cvtne2ps_pbh(exp2_fast(y), exp2_fast(x));
    _mm512_store_si512(weights, reinterpret_cast<__m512i>(p));
    const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
    _mm512_store_ps(sum_after, _mm512_dpbf16_ps(_mm512_load_ps(sum), p, ones));
  }
  // A row's weights grew past 2^kLag: its top must be raised and the weights made again.
  [[gnu::always_inline]] bool too_high() const {
    return _mm512_cmp_ps_mask(highest, _mm512_set1_ps(kLag), _CMP_GT_OQ) != 0;
  }
};

}  // namespace lacuna::kernel::amx
