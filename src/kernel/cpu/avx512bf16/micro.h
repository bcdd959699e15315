// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Register tiles and the softmax step of the AVX512_BF16 kernels. Everything is static: each arch
// file has its own copy, and no symbol leaves it.
//
// vdpbf16ps adds to each of 16 f32 lanes the product of two bf16 pairs, one zmm per cycle on Zen 4.
//   QK: lanes are 16 keys, a pair is two channels; one q pair is broadcast to all keys.
//   PV: lanes are 16 channels, a pair is two keys; one probability pair is broadcast.
// A tile of 8 rows x 2 vectors holds 16 sums: more than the 6 cycles of latency need, and 10 loads
// per 16 products stay under the one load per cycle.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "op/attend.h"

namespace lacuna::kernel::avx512bf16 {

constexpr int kRows = 8;                   // rows of a register tile
constexpr int kStepTiles = 4;              // tiles per softmax step
constexpr int kStep = kStepTiles * kTileKeys;
constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;
constexpr float kMinusInf = -__builtin_inff();
// Probabilities may grow to 2^8 before the row is rescaled: bf16 loses nothing by it.
constexpr float kLazy = 8.0f;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int64_t padded(int64_t d) { return (d + 31) / 32 * 32; }
static inline const char* block_of(const PackedView& x, int64_t tile, int head) {
  return static_cast<const char*>(x.data) + (tile * x.heads + head) * padded(x.dim) * kTileKeys * 2;
}

// 2^x: 0 for -inf, NaN for NaN. The polynomial's relative error is 1.0e-4 (bf16 rounding: 1.7e-3).
static inline __m512 exp2_fast(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x01);  // x - floor(x)
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.07896725704217254f), f, _mm512_set1_ps(0.22469315576399565f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.6963247710915828f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.9999002881727677f));
  return _mm512_scalef_ps(p, x);  // takes floor(x) itself
}

// The same with a relative error of 2e-7: for scale factors, which multiply up.
static inline __m512 exp2_exact(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 0x00);  // x - nearest(x), in [-1/2, 1/2]
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(1.5403530393e-4f), f, _mm512_set1_ps(1.3333558146e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291076e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504108665e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022650696e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718056e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  // x - f is a whole number; -inf - 0 stays -inf.
  return _mm512_scalef_ps(p, _mm512_sub_ps(x, f));
}
static inline float exp2_exact(float x) { return _mm512_cvtss_f32(exp2_exact(_mm512_set1_ps(x))); }

static inline __m512bh as_bf16(__m512i x) { return reinterpret_cast<__m512bh>(x); }

// s[r][0..31] = q_r . k over one tile. q: [pairs][R] bf16 pairs; k: [2][pairs][16] pairs; row stride
// of s is kStep. If Fetch, the block at `next` is brought near meanwhile.
template <int R, bool Fetch = false>
[[gnu::always_inline]] static inline void qk_tile(const int32_t* q, const char* k, int64_t pairs, float* s,
                                                  const char* next = nullptr) {
  __m512 sum[R][2];
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  const char* k1 = k + pairs * 64;
  for (int64_t p = 0; p < pairs; ++p) {
    if (Fetch) {
      _mm_prefetch(next + p * 128, _MM_HINT_T0);
      _mm_prefetch(next + p * 128 + 64, _MM_HINT_T0);
    }
    const __m512bh a = as_bf16(_mm512_load_si512(k + p * 64)), b = as_bf16(_mm512_load_si512(k1 + p * 64));
    for (int r = 0; r < R; ++r) {
      const __m512bh x = as_bf16(_mm512_set1_epi32(q[p * R + r]));
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, a);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, b);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_store_ps(s + r * kStep, sum[r][0]);
    _mm512_store_ps(s + r * kStep + 16, sum[r][1]);
  }
}

// acc[r][0..16 C) += p_r . v over `tiles` tiles. p: row stride kStep bf16; v[t]: the tile's first
// channel vector wanted, [C][16 key pairs][16] pairs.
template <int R, int C, bool Fetch = false>
[[gnu::always_inline]] static inline void pv_tiles(const uint16_t* p, const char* const* v, int64_t v_offset, int tiles,
                                                   float* acc, int64_t acc_row, const char* next = nullptr) {
  __m512 sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = _mm512_loadu_ps(acc + r * acc_row + c * 16);
  for (int t = 0; t < tiles; ++t) {
    const char* vt = v[t] + v_offset;
    const char* pt = reinterpret_cast<const char*>(p) + t * kTileKeys * 2;
    for (int pair = 0; pair < 16; ++pair) {
      if (Fetch)
        for (int c = 0; c < C; ++c) _mm_prefetch(next + (pair * C + c) * 64, _MM_HINT_T0);
      __m512bh y[C];
      for (int c = 0; c < C; ++c) y[c] = as_bf16(_mm512_load_si512(vt + c * 1024 + pair * 64));
      for (int r = 0; r < R; ++r) {
        int32_t x;
        memcpy(&x, pt + r * (kStep * 2) + pair * 4, 4);
        const __m512bh xx = as_bf16(_mm512_set1_epi32(x));
        for (int c = 0; c < C; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], xx, y[c]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) _mm512_storeu_ps(acc + r * acc_row + c * 16, sum[r][c]);
}

// True if q.k can go into the softmax as it is: the scale is then part of the exponential's argument.
static inline bool raw_scores(const op::Attend::Args& a) { return a.softcap <= 0 && !a.bias && a.scale != 0; }

// Turns `tiles` tiles of one row's scores into bf16 probabilities. visible[t]: bits of the row's
// cells; hidden cells come out exactly 0 whatever their score. Scores times `unit` are in log2 units.
//   m    in units of the scores: at most kLazy / unit below the true maximum; -inf: nothing seen
//   l    [16] lane sums of 2^((s - m) unit)
static inline void softmax_step(const float* s, const uint32_t* visible, int tiles, float unit, int64_t dv, float& m,
                                float* l, float* acc, uint16_t* p) {
  __m512 top = _mm512_set1_ps(kMinusInf);
  for (int t = 0; t < tiles; ++t) {
    const uint32_t w = visible[t];
    // max_ps returns its second operand when one is NaN: NaN scores do not enter the maximum.
    top = _mm512_mask_max_ps(top, static_cast<__mmask16>(w), _mm512_load_ps(s + t * 32), top);
    top = _mm512_mask_max_ps(top, static_cast<__mmask16>(w >> 16), _mm512_load_ps(s + t * 32 + 16), top);
  }
  if (_mm512_cmp_ps_mask(_mm512_mul_ps(_mm512_sub_ps(top, _mm512_set1_ps(m)), _mm512_set1_ps(unit)),
                         _mm512_set1_ps(kLazy), _CMP_GT_OQ)) {
    const float new_m = _mm512_reduce_max_ps(top);
    const __m512 shrink = _mm512_set1_ps(m == kMinusInf ? 0.0f : exp2_exact((m - new_m) * unit));
    for (int64_t d = 0; d < dv; d += 16) _mm512_storeu_ps(acc + d, _mm512_mul_ps(_mm512_loadu_ps(acc + d), shrink));
    _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), shrink));
    m = new_m;
  }
  const float base = m == kMinusInf ? 0.0f : m * unit;  // nothing seen yet: visible scores are -inf or NaN
  const __m512 u = _mm512_set1_ps(unit), minus = _mm512_set1_ps(base);
  __m512 sum = _mm512_loadu_ps(l);
  for (int t = 0; t < tiles; ++t) {
    const uint32_t w = visible[t];
    const __m512 a = _mm512_maskz_mov_ps(static_cast<__mmask16>(w),
                                         exp2_fast(_mm512_fmsub_ps(_mm512_load_ps(s + t * 32), u, minus)));
    const __m512 b = _mm512_maskz_mov_ps(static_cast<__mmask16>(w >> 16),
                                         exp2_fast(_mm512_fmsub_ps(_mm512_load_ps(s + t * 32 + 16), u, minus)));
    sum = _mm512_add_ps(sum, _mm512_add_ps(a, b));
    _mm512_store_si512(p + t * 32, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b, a)));
  }
  _mm512_storeu_ps(l, sum);
}

// Scores with a soft cap or a bias, rewritten in log2 units (unit 1 from then on).
//   cap tanh(s scale / cap) = cap (1 - 2 / (2^(2 log2e s scale / cap) + 1))
static inline void finish_scores(const op::Attend::Args& a, int head, int row, float scale, const int32_t* tile, int tiles,
                                 float* s) {
  const float slope = a.slope ? a.slope[head] : 1.0f;
  for (int t = 0; t < tiles; ++t)
    for (int h = 0; h < 32; h += 16) {
      float* at = s + t * 32 + h;
      __m512 x = _mm512_mul_ps(_mm512_load_ps(at), _mm512_set1_ps(scale));
      if (a.softcap > 0) {
        const __m512 e = exp2_exact(_mm512_mul_ps(x, _mm512_set1_ps(2 * kLog2e / a.softcap)));
        const __m512 one = _mm512_set1_ps(1.0f);
        const __m512 rest = _mm512_div_ps(_mm512_set1_ps(2.0f), _mm512_add_ps(e, one));
        x = _mm512_mul_ps(_mm512_set1_ps(a.softcap), _mm512_sub_ps(one, rest));
      }
      if (a.bias) {
        const int64_t cell = static_cast<int64_t>(tile[t]) * kTileKeys + h, left = a.n_cells - cell;
        const __mmask16 in = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
        const __m256i bits = _mm256_maskz_loadu_epi16(in, a.bias + row * a.bias_row + cell);
        x = _mm512_fmadd_ps(_mm512_set1_ps(slope), _mm512_cvtph_ps(bits), x);
      }
      _mm512_store_ps(at, _mm512_mul_ps(x, _mm512_set1_ps(kLog2e)));
    }
}

// One row's end: sink, state, out, lse. m in natural-log units, l summed.
static inline void finish_row(const op::Attend::Args& a, int head, int row, float m, float l, const float* acc) {
  const int64_t at = static_cast<int64_t>(head) * a.n_rows + row;
  if (a.resume.m) {
    a.resume.m[at] = m;
    a.resume.l[at] = l;
    memcpy(a.resume.acc + at * a.dv, acc, static_cast<size_t>(a.dv) * 4);
    if (!a.normalise) return;
  }
  float shrink = 1.0f;
  if (a.sinks && l != 0) {
    const float sink = a.sinks[head];
    if (sink > m) {
      shrink = exp2_exact((m - sink) * kLog2e);
      l *= shrink;
      m = sink;
    }
    l += exp2_exact((sink - m) * kLog2e);
  }
  if (a.out) {
    float* out = a.out + head * a.out_head + row * a.out_row;
    const __m512 by = _mm512_set1_ps(l == 0 ? 0.0f : shrink / l);
    for (int d = 0; d < a.dv; d += 16) {
      const __mmask16 in = a.dv - d >= 16 ? 0xffff : static_cast<__mmask16>((1u << (a.dv - d)) - 1);
      _mm512_mask_storeu_ps(out + d, in, l == 0 ? by : _mm512_mul_ps(_mm512_loadu_ps(acc + d), by));
    }
  }
  if (a.lse) a.lse[at] = l == 0 ? kMinusInf : m + __builtin_logf(l);
}

// What both kernels can take; null = everything.
static inline const char* why_not_common(const op::Attend::Args& a, bool in_place = false) {
  if (a.precision == Precision::high) return "precision is high: bf16 would round K and V";
  if (!in_place && (a.packed_k.format != PackFormat::pair16_bf16 || a.packed_v.format != PackFormat::pair16_bf16))
    return "K and V are not packed as pair16_bf16";
  if (a.dk < 16 || a.dk > 256 || a.dk % 8 || a.dv < 16 || a.dv > 256 || a.dv % 8)
    return "head_dim must be a multiple of 8 between 16 and 256";
  if (a.runs.block_q < 1 || a.runs.block_q > kMaxBlockQ) return "row blocks must have 1 to 128 rows";
  if (a.runs.slots && a.bias) return "gathered tiles with an additive mask";
  return nullptr;
}

}  // namespace lacuna::kernel::avx512bf16
