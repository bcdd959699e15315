// SPDX-License-Identifier: Apache-2.0
// op line_sums with products by vdpbf16ps; kernel/cpu/lane16 does the rest.
#include "kernel/cpu/avx512bf16/line_scores.h"

namespace lacuna::kernel::avx512bf16 {
namespace {

const char* why_not(const Args& a, int) { return why_not_products(a); }

}  // namespace

extern const Kernel<op::LineSums> line_sums;
const Kernel<op::LineSums> line_sums{
    .name = "cpu.avx512bf16",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = lines::tasks,
    .scratch_bytes = lines::scratch_bytes<Scores>,
    .shared_bytes = lines::shared_bytes,
    .run = lines::run<Scores>,
};

}  // namespace lacuna::kernel::avx512bf16
