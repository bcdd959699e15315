// SPDX-License-Identifier: Apache-2.0
// op strided_scores without broadcasts: lane i of a half tile is a key whose number is i modulo S
// within its group, so a vector of S query pairs, the rows of one antidiagonal square in reversed
// order, repeated 16 / S times, meets every key with its own row. The S lanes of a group are summed
// once, after all channels.
#include "kernel/cpu/avx512bf16/micro.h"
#include "kernel/kernel.h"
#include "op/strided_scores.h"

namespace lacuna::kernel::avx512bf16 {
namespace {

using Args = op::StridedScores::Args;

constexpr int kBlock = 8;  // strided rows that share every loaded key vector

template <int S>
__m512bh repeated(const int32_t* q) {
  if constexpr (S == 1) return as_bf16(_mm512_set1_epi32(*q));
  if constexpr (S == 2) {
    int64_t two;
    memcpy(&two, q, 8);
    return as_bf16(_mm512_set1_epi64(two));
  }
  if constexpr (S == 4) return as_bf16(_mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(q))));
  if constexpr (S == 8) return as_bf16(_mm512_broadcast_i64x4(_mm256_load_si256(reinterpret_cast<const __m256i*>(q))));
  return as_bf16(_mm512_load_si512(q));
}

// The sums over groups of S lanes, in the first 16 / S lanes.
template <int S>
__m512 group_sums(__m512 x) {
  if constexpr (S >= 2) x = _mm512_add_ps(x, _mm512_permute_ps(x, 0xb1));
  if constexpr (S >= 4) x = _mm512_add_ps(x, _mm512_permute_ps(x, 0x4e));
  if constexpr (S >= 8) x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0xb1));
  if constexpr (S >= 16) x = _mm512_add_ps(x, _mm512_shuffle_f32x4(x, x, 0x4e));
  constexpr uint32_t kFirst = S == 1 ? 0xffff : S == 2 ? 0x5555 : S == 4 ? 0x1111 : S == 8 ? 0x0101 : 0x0001;
  return S == 1 ? x : _mm512_maskz_compress_ps(kFirst, x);
}

// Strided rows [first, first + rows) of the head, rows <= R. Scratch: [R][pairs][S] query pairs.
template <int S, int R>
void run_rows(const Args& a, int head, int64_t first, int rows, int32_t* q) {
  const int64_t pairs = padded(a.dk) / 2, row_words = pairs * S;
  memset(q, 0, static_cast<size_t>(R * row_words) * 4);
  for (int m = 0; m < rows; ++m)
    for (int s = 0; s < S; ++s) {
      const int64_t row = (first + m) * S + S - 1 - s;
      if (row >= a.n_rows) continue;
      const float* from = a.q + head * a.q_head + row * a.q_row;
      for (int d = 0; d < a.dk; d += 16) {
        const int left = a.dk - d;
        const __mmask16 in = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
        alignas(32) int32_t pair[8];
        _mm256_store_si256(reinterpret_cast<__m256i*>(pair),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(in, from + d))));
        for (int i = 0; i < 8; ++i) q[m * row_words + (d / 2 + i) * S + s] = pair[i];
      }
    }

  const int kv_head = head / (a.hq / a.hkv);
  const int64_t n_cols = a.n_cols(), keys = a.causal_end(first + rows - 1) * S, halves = (keys + 15) / 16;
  const auto half_at = [&](int64_t j) {
    const int64_t cell = a.first_cell + 16 * j;
    return block_of(a.packed_k, cell / kTileKeys, kv_head) + cell % kTileKeys / 16 * pairs * 64;
  };
  for (int64_t j = 0; j < halves; j += 2) {
    const char* k[2] = {half_at(j), half_at(j + 1 < halves ? j + 1 : j)};
    __m512 sum[R][2];
    for (int m = 0; m < R; ++m) sum[m][0] = sum[m][1] = _mm512_setzero_ps();
    for (int64_t p = 0; p < pairs; ++p) {
      const __m512bh x = as_bf16(_mm512_load_si512(k[0] + p * 64)), y = as_bf16(_mm512_load_si512(k[1] + p * 64));
      for (int m = 0; m < R; ++m) {
        const __m512bh z = repeated<S>(q + m * row_words + p * S);
        sum[m][0] = _mm512_dpbf16_ps(sum[m][0], x, z);
        sum[m][1] = _mm512_dpbf16_ps(sum[m][1], y, z);
      }
    }
    for (int i = 0; i < 2 && j + i < halves; ++i) {
      // Cells past the segment's keys may hold anything.
      const int64_t left = a.n_keys - 16 * (j + i), col = 16 * (j + i) / S, cols = n_cols - col;
      const __mmask16 in = left >= 16 ? 0xffff : static_cast<__mmask16>((1u << left) - 1);
      const __mmask16 to = static_cast<__mmask16>((1u << (cols < 16 / S ? cols : 16 / S)) - 1);
      for (int m = 0; m < rows; ++m)
        _mm512_mask_storeu_ps(a.score + (head * a.m_rows() + first + m) * a.score_row + col, to,
                              group_sums<S>(_mm512_maskz_mov_ps(in, sum[m][i])));
    }
  }
}

template <int S>
void run_block(const Args& a, int head, int64_t first, int rows, int32_t* q) {
  if (rows == 1) run_rows<S, 1>(a, head, first, rows, q);
  else run_rows<S, kBlock>(a, head, first, rows, q);
}

const char* why_not(const Args& a, int) {
  if (a.packed_k.format != PackFormat::pair16_bf16) return "K is not packed as pair16_bf16";
  const int s = a.stride;
  if (s != 1 && s != 2 && s != 4 && s != 8 && s != 16) return "stride must be 1, 2, 4, 8 or 16";
  if (a.first_cell % 16) return "the first cell must be a multiple of 16";
  return nullptr;
}

int tasks(const Args& a, int, int) { return static_cast<int>((a.m_rows() + kBlock - 1) / kBlock) * a.hq; }
size_t scratch_bytes(const Args& a) { return static_cast<size_t>(kBlock * a.stride * padded(a.dk) * 2); }

void run(const Args& a, int, int task, int, void* scratch, void*) {
  // Heads of a KV group side by side; the last rows of a causal call are the longest and go first.
  const int blocks = static_cast<int>((a.m_rows() + kBlock - 1) / kBlock);
  const int head = task % a.hq;
  const int64_t first = static_cast<int64_t>(blocks - 1 - task / a.hq) * kBlock, left = a.m_rows() - first;
  const int rows = left < kBlock ? static_cast<int>(left) : kBlock;
  int32_t* q = static_cast<int32_t*>(scratch);
  switch (a.stride) {
    case 1: return run_block<1>(a, head, first, rows, q);
    case 2: return run_block<2>(a, head, first, rows, q);
    case 4: return run_block<4>(a, head, first, rows, q);
    case 8: return run_block<8>(a, head, first, rows, q);
    case 16: return run_block<16>(a, head, first, rows, q);
  }
}

}  // namespace

extern const Kernel<op::StridedScores> strided_scores;
const Kernel<op::StridedScores> strided_scores{
    .name = "cpu.avx512bf16",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .tasks = tasks,
    .scratch_bytes = scratch_bytes,
    .run = run,
};

}  // namespace lacuna::kernel::avx512bf16
