// SPDX-License-Identifier: Apache-2.0
// op int8_scores in whole numbers, for few queries: vpdpbusd takes four channels of sixteen cells at a time. The
// work around the tile is kernel/cpu/lane16's.
//   q     ~ unit w,  unit = the row's largest |q_d| / 127
//   score = unit scale (w . n)  +  q . centre
// The instruction wants one side without a sign: it gets n + 128, and the sums begin at -128 sum w.
#include "kernel/cpu/avx512/side_vec.h"

#undef LACUNA_ARCH
#define LACUNA_ARCH avx512vnni
namespace lacuna::kernel::avx512vnni {
using namespace avx512;
}
#include "kernel/cpu/lane16/side_scores.inc"

namespace lacuna::kernel::avx512vnni {
namespace scoring {

constexpr int kSteps = 127;
constexpr float kLeastUnit = 0x1p-100f;  // queries below are as good as zero, and their inverse would overflow

struct OfInt8Bytes : OfInt8 {
  // A prepared query: [D] f32, [D] s8, unit, -128 sum w; D = Dk padded to 32.
  static int channels(const Args& a) { return OfInt8::dims(a); }
  static int dims(const Args& a) { return channels(a) + channels(a) / 4 + 2; }
  static void put(const Args& a, int head, int row, float* panel, int i, int) {
    const int n = channels(a);
    const float* q = a.q + head * a.q_head + row * a.q_row;
    float* to = panel + static_cast<int64_t>(i) * dims(a);
    F most = zero(), odd = zero();  // odd: NaN where the query is no number
    for (int d = 0; d < n; d += kW) {
      const F x = load_some(q + d, a.dk - d);
      store(to + d, x);
      most = max(_mm512_abs_ps(x), most);
      odd = add(odd, sub(x, x));
    }
    float unit = largest(most) / kSteps;
    if (!(unit >= kLeastUnit)) unit = 0;
    const F inverse = all(unit > 0 && unit < kInfinity ? 1.0f / unit : 0.0f);
    __m512i total = _mm512_setzero_si512();
    for (int d = 0; d < n; d += kW) {
      const __m128i w = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(mul(load(to + d), inverse)));
      memcpy(reinterpret_cast<char*>(to + n) + d, &w, sizeof w);
      total = _mm512_add_epi32(total, _mm512_cvtepi8_epi32(w));
    }
    to[n + n / 4] = unit + sum(odd);
    const int32_t start = -128 * _mm512_reduce_add_epi32(total);
    memcpy(to + n + n / 4 + 1, &start, sizeof start);
  }
  template <int R>
  [[gnu::always_inline]] static void tile(const Args& a, int kv_head, int64_t t, const float* q, float*, float* s) {
    constexpr int kParts = R <= 4 ? 2 : 1;  // more chains where few rows would wait for each sum
    const int n = channels(a), step = dims(a);
    const char* block = static_cast<const char*>(a.keys.data) + (t * a.hkv + kv_head) * tile_bytes(a);
    const auto* scales = reinterpret_cast<const float*>(block + int64_t{n} * kTileKeys);
    const auto* centres = reinterpret_cast<const uint16_t*>(scales + kTileKeys);
    const auto four = [](const char* p) {
      int32_t x;
      memcpy(&x, p, 4);
      return _mm512_set1_epi32(x);
    };
    __m512i sums[R][2][kParts];
    for (int r = 0; r < R; ++r)
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < kParts; ++i)
          sums[r][half][i] =
              i ? _mm512_setzero_si512() : four(reinterpret_cast<const char*>(q + r * step + n + n / 4 + 1));
    const __m512i without_sign = _mm512_set1_epi8(-128);
    for (int d = 0; d < n; d += 4 * kParts)
      for (int i = 0; i < kParts; ++i) {
        const char* from = block + (d + 4 * i) * 16;
        const __m512i k0 = _mm512_xor_si512(_mm512_loadu_si512(from), without_sign);
        const __m512i k1 = _mm512_xor_si512(_mm512_loadu_si512(from + n * 16), without_sign);
        for (int r = 0; r < R; ++r) {
          const __m512i w = four(reinterpret_cast<const char*>(q + r * step + n) + d + 4 * i);
          sums[r][0][i] = _mm512_dpbusd_epi32(sums[r][0][i], k0, w);
          sums[r][1][i] = _mm512_dpbusd_epi32(sums[r][1][i], k1, w);
        }
      }
    for (int r = 0; r < R; ++r) {
      const float* x = q + r * step;
      F middle = zero();
      for (int d = 0; d < n; d += kW) middle = fma(load(x + d), load_bf16(centres + d), middle);
      const F common = all(sum(middle)), unit = all(x[n + n / 4]);
      for (int half = 0; half < 2; ++half) {
        __m512i whole = sums[r][half][0];
        if (kParts == 2) whole = _mm512_add_epi32(whole, sums[r][half][1]);
        store(s + r * kTileKeys + half * 16,
              fma(mul(_mm512_cvtepi32_ps(whole), load(scales + half * 16)), unit, common));
      }
    }
  }
};

}  // namespace scoring

extern const Kernel<op::Int8Scores> int8_scores;
const Kernel<op::Int8Scores> int8_scores{
    .name = "cpu.avx512vnni",
    .needs = kAvx512 | kAvx512Vnni,
    .why_not = [](const op::Int8Scores::Args& a, int) { return a.round_q ? nullptr : "rounds the queries"; },
    .tasks = scoring::tasks<scoring::OfInt8Bytes>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfInt8Bytes>,
    .run = scoring::run<scoring::OfInt8Bytes>,
};

}  // namespace lacuna::kernel::avx512vnni
