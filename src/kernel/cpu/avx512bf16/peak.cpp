// SPDX-License-Identifier: Apache-2.0
#include "kernel/cpu/avx512/vec.h"

#include "kernel/cpu/avx512bf16/micro.h"
#include "kernel/cpu/lane16/peak.inc"

namespace lacuna::kernel::avx512bf16 {
namespace {

double products(int64_t rounds) {
  constexpr int kSums = 2 * kRows;
  __m512 sum[kSums];
  for (__m512& s : sum) s = _mm512_setzero_ps();
  __m512i a = _mm512_set1_epi16(0x3f00), b = a;
  for (int64_t i = 0; i < rounds; ++i) {
    asm volatile("" : "+v"(a), "+v"(b));  // the same operands every time, unknown to the compiler
#pragma GCC unroll 32
    for (int j = 0; j < kSums; ++j) sum[j] = _mm512_dpbf16_ps(sum[j], as_bf16(a), as_bf16(b));
  }
  for (__m512& s : sum) asm volatile("" ::"v"(s));
  return 2.0 * kSums * 32 * static_cast<double>(rounds);
}

// Steps of four tiles, as the kernels take them, of a row whose maximum does not move.
double weights(int64_t rounds) {
  alignas(64) float scores[kStep] = {}, sums[16] = {}, acc[16] = {}, top = 0;
  alignas(64) uint16_t p[kStep];
  const uint32_t visible[kStepTiles] = {~0u, ~0u, ~0u, ~0u};
  for (int64_t i = 0; i < rounds; ++i) {
    softmax_step(scores, visible, kStepTiles, 1.0f, 16, top, sums, acc, p);
    asm volatile("" ::"r"(p) : "memory");
  }
  return kStep * static_cast<double>(rounds);
}

}  // namespace

extern const Peak peak;
const Peak peak{.kernels = "cpu.avx512bf16", .needs = kAvx512 | kAvx512Bf16, .products = products, .weights = weights, .read = avx512::peak_read};

}  // namespace lacuna::kernel::avx512bf16
