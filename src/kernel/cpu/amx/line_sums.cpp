// SPDX-License-Identifier: Apache-2.0
// op line_sums on AMX: products by tiles; kernel/cpu/lane16 does the rest.
#include "kernel/cpu/amx/line_scores.h"

namespace lacuna::kernel::amx {
namespace {

const char* why_not(const Args& a, int) { return why_not_products(a); }

}  // namespace

extern const Kernel<op::LineSums> line_sums, line_sums_emulated;
const Kernel<op::LineSums> line_sums{
    .name = "cpu.amx",
    .needs = kAvx512 | kAvx512Bf16 | kAmxBf16,
    .pack = PackFormat::pair16_bf16,
    .why_not = why_not,
    .phases = 2,
    .tasks = lines::tasks,
    .scratch_bytes = lines::scratch_bytes<Scores<HardwareTiles>>,
    .shared_bytes = lines::shared_bytes,
    .run = lines::run<Scores<HardwareTiles>>,
};
const Kernel<op::LineSums> line_sums_emulated{
    .name = "cpu.amx.emulated",
    .needs = kAvx512 | kAvx512Bf16,
    .pack = PackFormat::pair16_bf16,
    .only_forced = "emulation is for tests: force it by name",
    .why_not = why_not,
    .phases = 2,
    .tasks = lines::tasks,
    .scratch_bytes = lines::scratch_bytes<Scores<EmulatedTiles>>,
    .shared_bytes = lines::shared_bytes,
    .run = lines::run<Scores<EmulatedTiles>>,
};

}  // namespace lacuna::kernel::amx
