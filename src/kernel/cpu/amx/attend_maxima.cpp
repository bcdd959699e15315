// SPDX-License-Identifier: Apache-2.0
// op attend_maxima on AMX: products by tiles; kernel/cpu/lane16 does the rest.
#include "kernel/cpu/amx/line_scores.h"

#include "kernel/cpu/lane16/attend_maxima.inc"

namespace lacuna::kernel::amx {
namespace {

namespace maxima = avx512::maxima;

const char* why_not(const maxima::Args& a, int) {
  if (const char* why = maxima::why_not(a)) return why;
  return why_not_products(maxima::products_of(a));
}

}  // namespace

extern const Kernel<op::AttendMaxima> attend_maxima, attend_maxima_emulated;
const Kernel<op::AttendMaxima> attend_maxima{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = maxima::tasks,
    .scratch_bytes = maxima::scratch_bytes<Scores<HardwareTiles>>,
    .shared_bytes = maxima::shared_bytes,
    .run = maxima::run<Scores<HardwareTiles>>,
};
const Kernel<op::AttendMaxima> attend_maxima_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .phases = 2,
    .tasks = maxima::tasks,
    .scratch_bytes = maxima::scratch_bytes<Scores<EmulatedTiles>>,
    .shared_bytes = maxima::shared_bytes,
    .run = maxima::run<Scores<EmulatedTiles>>,
};

}  // namespace lacuna::kernel::amx
