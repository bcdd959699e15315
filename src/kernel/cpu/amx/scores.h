// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What must happen to scores before they are weighed: scale, soft-cap, bias, mask, and tiles left out by pv_skip.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernel/cpu/amx/strips.h"
#include "kernel/cpu/amx/weigh.h"

namespace lacuna::kernel::amx {
namespace {

class Scores {
 public:
  explicit Scores(const Args& a)
      : a_(a), adjusts_(a.softcap > 0 || a.bias || !(a.scale > 0)), factor_(adjusts_ ? 1.0f : a.scale * kLog2e) {}

  // From what prepare() leaves to base-2 logits.
  float factor() const { return factor_; }
  bool skips() const { return a_.pv_skip != nullptr; }
  // Whether a tile is weighed by a FastWeigher: where no score is -inf as a rule. Only the row's list decides.
  bool fast(const Keys& keys) const { return !keys.words && !a_.bias; }

  // A unit's scores s[32][32] with a tile.
  void prepare(const Unit& x, float* s, const Keys& keys) const {
    if (adjusts_)
      for (int r = 0; r < x.live; ++r) adjust(x.row(r), s + r * kTileKeys, keys);
    if (!keys.words) return;
    const __m512 none = _mm512_set1_ps(kNone);
    int row = x.first_in_block();
    for (int r = 0; r < x.live; ++r, s += kTileKeys) {
      const std::uint32_t hidden = ~keys.words[row];
      _mm512_mask_store_ps(s, static_cast<__mmask16>(hidden), none);
      _mm512_mask_store_ps(s + 16, static_cast<__mmask16>(hidden >> 16), none);
      if (++row == x.strip->rows) row = 0;
    }
  }

  // pv_skip, after prepare: whether the unit leaves the tile out, whose scores are then -inf.
  [[gnu::noinline]] bool leave_out(const Unit& x, float* s, const Keys& keys) const {
    const __m512 factor = _mm512_set1_ps(factor_);
    bool small = !keys.words && !keys.last;
    for (int r = 0; r < x.live; ++r) {
      const __m512 low = _mm512_mul_ps(_mm512_load_ps(s + r * kTileKeys), factor);
      const __m512 high = _mm512_mul_ps(_mm512_load_ps(s + r * kTileKeys + 16), factor);
      const __m512 bound = _mm512_set1_ps(x.most[r] - a_.pv_skip[x.row(r).head]);
      // Not less or equal: above, or a NaN. A maximum takes its second operand for a NaN.
      small = small && !(_mm512_cmp_ps_mask(low, bound, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(high, bound, _CMP_NLE_UQ));
      x.most[r] = _mm512_reduce_max_ps(_mm512_max_ps(high, _mm512_max_ps(low, _mm512_set1_ps(x.most[r]))));
    }
    if (!small) return false;
    const __m512 none = _mm512_set1_ps(kNone);
    for (int i = 0; i < kUnitRows * kTileKeys; i += 16) _mm512_store_ps(s + i, none);
    return true;
  }

 private:
  // Scores to base-2 logits where more than a positive factor lies between them.
  void adjust(const Row& at, float* s, const Keys& keys) const {
    const __m512 scale = _mm512_set1_ps(a_.softcap > 0 ? a_.scale / a_.softcap : a_.scale);
    const __m512 cap = _mm512_set1_ps(a_.softcap);
    const __m512 slope = _mm512_set1_ps(a_.slope ? a_.slope[at.head] : 1.0f);
    for (int half = 0; half < 2; ++half, s += 16) {
      const std::int64_t cell = keys.first_cell + half * 16, left = a_.n_cells - cell;
      __m512 y = _mm512_mul_ps(_mm512_load_ps(s), scale);
      if (a_.softcap > 0) y = _mm512_mul_ps(tanh16(y), cap);
      if (a_.bias) {
        const __m256i b = _mm256_maskz_loadu_epi16(first_lanes(left < 16 ? static_cast<int>(left) : 16),
                                                   a_.bias + at.row * a_.bias_row + cell);
        y = _mm512_fmadd_ps(slope, _mm512_cvtph_ps(b), y);
      }
      _mm512_store_ps(s, _mm512_mul_ps(y, _mm512_set1_ps(kLog2e)));
    }
  }

  const Args& a_;
  bool adjusts_;  // scores pass through adjust()
  float factor_;
};

}  // namespace
}  // namespace lacuna::kernel::amx
