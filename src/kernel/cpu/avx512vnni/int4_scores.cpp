// SPDX-License-Identifier: Apache-2.0
// op int4_scores in whole numbers: a tile's nibbles are the bytes that vpdpbusd multiplies by four at a time,
// the numbers q scale become bytes with a sign. The work around the tile is kernel/cpu/lane16's.
//   q scale ~ unit w,  unit = the largest |q scale| of the tile / 127
//   score   = unit sum w n + sum q zero
// What the bytes round away is small beside what 4 bits of a key do: half of unit for each channel, against
// half of that channel's own q scale.
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
constexpr float kLeastUnit = 0x1p-100f;  // scales below are as good as zero, and their inverse would overflow

// A query against one tile's scales.
struct Weights {
  int8_t* byte;  // [dims]
  float unit, zero;
};

static void weigh(const float* q, const uint16_t* scales, const uint16_t* zeros, int dims, Weights& w) {
  F total = zero(), most = zero();
  const auto at = [dims]<class S>(const S* p, int d) { return d + kW <= dims ? load(p + d) : load_some(p + d, dims - d); };
  for (int d = 0; d < dims; d += kW) {
    const F x = at(q, d);
    total = fma(x, at(zeros, d), total);
    most = max(_mm512_abs_ps(mul(x, at(scales, d))), most);
  }
  w.zero = sum(total);
  w.unit = largest(most) / kSteps;
  if (!(w.unit < kInfinity)) w.zero = __builtin_nanf("");  // a query that is no number: nothing can be judged
  if (!(w.unit >= kLeastUnit && w.unit < kInfinity)) w.unit = 0;
  const F inverse = all(w.unit > 0 ? 1.0f / w.unit : 0.0f);
  for (int d = 0; d < dims; d += kW) {
    const F x = w.unit > 0 ? mul(mul(at(q, d), at(scales, d)), inverse) : zero();
    _mm512_mask_cvtepi32_storeu_epi8(w.byte + d, lanes(dims - d), _mm512_cvtps_epi32(x));
  }
}

static inline __m512i four(const int8_t* p) {
  int32_t x;
  memcpy(&x, p, 4);
  return _mm512_set1_epi32(x);
}

struct OfBytes : OfInt4 {
  static int64_t work_floats(const Args& a) { return int64_t{kRows} * dims(a) / 4; }
  template <int R>
  [[gnu::always_inline]] static void tile(const Args& a, int kv_head, int64_t t, const float* q, float* work, float* s) {
    constexpr int kParts = R <= 4 ? 2 : 1;  // more chains where few rows would wait for each sum
    const int n = dims(a);
    const char* block = static_cast<const char*>(a.keys.data) + (t * a.hkv + kv_head) * tile_bytes(a);
    const auto* scales = reinterpret_cast<const uint16_t*>(block);
    const auto* words_at = reinterpret_cast<const uint32_t*>(block) + n;
    Weights w[R];
    for (int r = 0; r < R; ++r) {
      w[r].byte = reinterpret_cast<int8_t*>(work) + r * n;
      weigh(q + r * n, scales, scales + n, n, w[r]);
    }
    __m512i sum[R][2][kParts];
    for (int r = 0; r < R; ++r)
      for (int half = 0; half < 2; ++half)
        for (int i = 0; i < kParts; ++i) sum[r][half][i] = _mm512_setzero_si512();
    const __m512i nibbles = _mm512_set1_epi8(15);
    for (int d = 0; d < n; d += 8) {
      __m512i low[2], high[2];
      for (int half = 0; half < 2; ++half) {
        const __m512i bits = load_words(words_at + d / 8 * kTileKeys + half * 16);
        low[half] = _mm512_and_si512(bits, nibbles);
        high[half] = _mm512_and_si512(_mm512_srli_epi32(bits, 4), nibbles);
      }
      for (int r = 0; r < R; ++r) {
        const __m512i w0 = four(w[r].byte + d), w1 = four(w[r].byte + d + 4);
        for (int half = 0; half < 2; ++half) {
          sum[r][half][0] = _mm512_dpbusd_epi32(sum[r][half][0], low[half], w0);
          sum[r][half][kParts - 1] = _mm512_dpbusd_epi32(sum[r][half][kParts - 1], high[half], w1);
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int half = 0; half < 2; ++half) {
        __m512i whole = sum[r][half][0];
        if (kParts == 2) whole = _mm512_add_epi32(whole, sum[r][half][1]);
        store(s + r * kTileKeys + half * 16, fma(_mm512_cvtepi32_ps(whole), all(w[r].unit), all(w[r].zero)));
      }
  }
};

}  // namespace scoring

extern const Kernel<op::Int4Scores> int4_scores;
const Kernel<op::Int4Scores> int4_scores{
    .name = "cpu.avx512vnni",
    .needs = kAvx512 | kAvx512Vnni,
    .tasks = scoring::tasks<scoring::OfBytes>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfBytes>,
    .run = scoring::run<scoring::OfBytes>,
};

}  // namespace lacuna::kernel::avx512vnni
