// SPDX-License-Identifier: Apache-2.0
// op attend_maxima with products by vdpbf16ps; kernel/cpu/lane16 does the rest.
#include "kernel/cpu/avx512bf16/line_scores.h"

#include "kernel/cpu/lane16/attend_maxima.inc"

namespace lacuna::kernel::avx512bf16 {
namespace {

namespace maxima = avx512::maxima;

const char* why_not(const maxima::Args& a, int) {
  if (const char* why = maxima::why_not(a)) return why;
  return why_not_products(maxima::products_of(a));
}

}  // namespace

extern const Kernel<op::AttendMaxima> attend_maxima;
const Kernel<op::AttendMaxima> attend_maxima{
    .name = "cpu.avx512bf16",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = maxima::tasks,
    .scratch_bytes = maxima::scratch_bytes<Scores>,
    .shared_bytes = maxima::shared_bytes,
    .run = maxima::run<Scores>,
};

}  // namespace lacuna::kernel::avx512bf16
