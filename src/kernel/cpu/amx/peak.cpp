// SPDX-License-Identifier: Apache-2.0
#include "kernel/cpu/avx512/vec.h"

#include "kernel/cpu/amx/tiles.h"
#include "kernel/cpu/amx/weigh.h"
#include "kernel/cpu/lane16/peak.inc"

namespace lacuna::kernel::amx {
namespace {

// Four running sums hide what one product takes; A and B stay where they are.
double products(std::int64_t rounds) {
  HardwareTiles tiles;
  tiles.zero<0>(), tiles.zero<1>(), tiles.zero<2>(), tiles.zero<3>();
  tiles.zero<4>(), tiles.zero<5>(), tiles.zero<6>(), tiles.zero<7>();
  for (std::int64_t i = 0; i < rounds; ++i) {
    tiles.multiply_add<0, 4, 6>();
    tiles.multiply_add<1, 5, 6>();
    tiles.multiply_add<2, 4, 7>();
    tiles.multiply_add<3, 5, 7>();
  }
  return 4.0 * 2 * kTileRows * kTileRows * kTileDepth * static_cast<double>(rounds);
}

double weights(std::int64_t rounds) {
  constexpr int kRows = 32;
  alignas(64) float scores[kRows][32] = {};
  alignas(64) std::uint16_t p[kRows][32];
  for (std::int64_t i = 0; i < rounds; ++i) {
    FastWeigher weigher(1.0f);
    for (int r = 0; r < kRows; ++r) weigher.row(scores[r], FastWeigher::zero(0.0f), p[r]);
    asm volatile("" ::"r"(p), "v"(weigher.nearest) : "memory");
  }
  return kRows * 32.0 * static_cast<double>(rounds);
}

}  // namespace

extern const Peak peak;
const Peak peak{.kernels = "cpu.amx", .needs = kAvx512 | kAvx512Bf16 | kAmxBf16, .products = products, .weights = weights, .read = avx512::peak_read};

}  // namespace lacuna::kernel::amx
