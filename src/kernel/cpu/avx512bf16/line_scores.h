// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Products by vdpbf16ps: 8 rows x 32 keys in registers, straight into the chunks of kernel/cpu/lane16/line_sums.inc.
#pragma once

#include "kernel/cpu/avx512/side_vec.h"

#include "kernel/cpu/avx512bf16/micro.h"
#include "kernel/cpu/lane16/line_sums.inc"

namespace lacuna::kernel::avx512bf16 {
namespace {

namespace lines = avx512::lines;
using lines::Args;

struct Scores {
  struct State {};
  // Query pairs: [groups of 8 rows][pairs][8].
  static size_t bytes(const Args& a) { return static_cast<size_t>(lines::kGroup * padded(a.dk) * 2); }
  static void prepare(const Args& a, int head, int64_t first, int rows, char* own) {
    const int64_t pairs = padded(a.dk) / 2;
    int32_t* q = reinterpret_cast<int32_t*>(own);
    memset(q, 0, bytes(a));
    for (int r = 0; r < rows; ++r) {
      const float* from = a.q + head * a.q_head + (first + r) * a.q_row;
      for (int d = 0; d < a.dk; d += 16) {
        const int left = a.dk - d;
        const __mmask16 in = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
        alignas(32) int32_t pair[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(pair),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(in, from + d))));
        for (int i = 0; i < 8; ++i) q[(r / kRows * pairs + d / 2 + i) * kRows + r % kRows] = pair[i];
      }
    }
  }
  static void fill(State&, const Args& a, int head, int rows, int64_t from, int64_t keys, const char* own, float* to) {
    const int64_t pairs = padded(a.dk) / 2;
    const int kv_head = head / (a.hq / a.hkv), groups = (rows + kRows - 1) / kRows;
    const int32_t* q = reinterpret_cast<const int32_t*>(own);
    const auto half_at = [&](int64_t half) { return block_of(a.packed_k, half / 2, kv_head) + half % 2 * pairs * 64; };
    for (int64_t j = from; j < keys; j += kTileKeys) {
      const int64_t half = (a.first_cell + j) / 16;
      const char *k0 = half_at(half), *k1 = half_at(j + 16 < keys ? half + 1 : half);
      for (int g = 0; g < groups; ++g) {
        const int32_t* x = q + g * pairs * kRows;
        __m512 sum[kRows][2];
        for (int r = 0; r < kRows; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int64_t p = 0; p < pairs; ++p) {
          const __m512bh left = as_bf16(_mm512_load_si512(k0 + p * 64)), right = as_bf16(_mm512_load_si512(k1 + p * 64));
          for (int r = 0; r < kRows; ++r) {
            const __m512bh y = as_bf16(_mm512_set1_epi32(x[p * kRows + r]));
            sum[r][0] = _mm512_dpbf16_ps(sum[r][0], y, left);
            sum[r][1] = _mm512_dpbf16_ps(sum[r][1], y, right);
          }
        }
        for (int r = 0; r < kRows; ++r) {
          _mm512_store_ps(to + (g * kRows + r) * lines::kRow + j - from, sum[r][0]);
          _mm512_store_ps(to + (g * kRows + r) * lines::kRow + j - from + 16, sum[r][1]);
        }
      }
    }
  }
};

[[maybe_unused]] const char* why_not_products(const Args& a) {
  if (a.packed_k.format != PackFormat::pair16_bf16) return "K is not packed as pair16_bf16";
  if (a.first_cell % 16) return "the first cell must be a multiple of 16";
  return nullptr;
}

}  // namespace
}  // namespace lacuna::kernel::avx512bf16
