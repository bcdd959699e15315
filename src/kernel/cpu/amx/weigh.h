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

[[gnu::always_inline]] static inline float exp2_of(float x) { return _mm512_cvtss_f32(exp2_fine(_mm512_set1_ps(x))); }

// 16 parts of a sum and 32 more weights.
[[gnu::always_inline]] static inline __m512 add_weights(__m512 sum, const std::uint16_t* weights) {
  const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_load_si512(weights)), ones);
}

// Weights of 32 scores of a row at a time.
struct Weigher {
  static constexpr bool kFromZero = false;
  __m512 factor;
  __m512 highest = _mm512_setzero_ps();  // the largest logit met, relative to its row's top

  [[gnu::always_inline]] explicit Weigher(float f = 0) : factor(_mm512_set1_ps(f)) {}
  [[gnu::always_inline]] void row(const float* s, float top, std::uint16_t* weights) {
    const __m512 t = _mm512_set1_ps(top);
    const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(s), factor, t);
    const __m512 y = _mm512_fmsub_ps(_mm512_load_ps(s + 16), factor, t);
    highest = _mm512_max_ps(_mm512_max_ps(x, y), highest);  // in this order a NaN never gets in
    const __m512bh p = _mm512_cvtne2ps_pbh(exp2_fast(y), exp2_fast(x));
    _mm512_store_si512(weights, reinterpret_cast<__m512i>(p));
  }
  // A row's weights grew past 2^kLag: its top must be raised and the weights made again.
  [[gnu::always_inline]] bool out_of_range() const {
    return _mm512_cmp_ps_mask(highest, _mm512_set1_ps(kLag), _CMP_GT_OQ) != 0;
  }
};

// The same by 16-bit integers, in half the instructions, few of which multiply floats: beside tile products those
// are the dear ones. How far a logit is below the top becomes 2^10 steps per power of two, and
//   2^g = 1 + g - (1/4 - z^2) (c0 + c1 z)    with z = g - 1/2, exact at g = 0 and 1,
// is, in such steps, at once the upper bits of a bf16.
struct FastWeigher {
  static constexpr bool kFromZero = true;
  static constexpr float kStep = 1024;
  // Where 2^0 stands among 16-bit integers: near the lower end, so that 2^9 is there and 2^-54 too, which
  // stands for all that is less. A NaN, like all that is too high, converts to the least.
  static constexpr float kZero = 512 - 22 * kStep;
  // Beyond 2^12 a float has no room for such steps: then all is out of range.
  static float zero(float top) {
    return __builtin_fabsf(top) <= 4096.0f ? __builtin_fmaf(top, kStep, kZero) : -__builtin_inff();
  }

  __m512 factor;
  __m512i nearest = _mm512_setzero_si512();

  [[gnu::always_inline]] explicit FastWeigher(float f = 0) : factor(_mm512_set1_ps(-f * kStep)) {}
  // In the order 0-3, 16-19, 4-7, 20-23 ...: those of two rows, unpacked, are pairs in order.
  [[gnu::always_inline]] __m512i by_fours(const float* s, float zero) {
    const __m512 t = _mm512_set1_ps(zero);
    const __m512i low = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(s), factor, t));
    const __m512i high = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_load_ps(s + 16), factor, t));
    const __m512i x = _mm512_packs_epi32(low, high);
    nearest = _mm512_min_epi16(nearest, x);
    const __m512i z = _mm512_slli_epi16(x, 6);  // -z * 2^16
    const __m512i arc = _mm512_sub_epi16(_mm512_set1_epi16(1 << 14), _mm512_mulhi_epi16(z, z));
    const __m512i slope = _mm512_add_epi16(_mm512_mulhrs_epi16(z, _mm512_set1_epi16(-20)), _mm512_set1_epi16(176));
    const __m512i y = _mm512_adds_epi16(x, _mm512_mulhrs_epi16(arc, slope));
    // Rounded to 2^7 steps per power of two.
    return _mm512_sub_epi16(_mm512_set1_epi16(0x3f80 + static_cast<int>(kZero) / 8),
                            _mm512_mulhrs_epi16(y, _mm512_set1_epi16(1 << 12)));
  }
  [[gnu::always_inline]] void row(const float* s, float zero, std::uint16_t* weights) {
    const __m512i p = by_fours(s, zero);
    _mm512_store_si512(weights, _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), p));
  }
  [[gnu::always_inline]] bool out_of_range() const {
    return _mm512_cmplt_epi16_mask(nearest, _mm512_set1_epi16(static_cast<short>(kZero - kLag * kStep))) != 0;
  }
};

}  // namespace lacuna::kernel::amx
