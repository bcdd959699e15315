// SPDX-License-Identifier: Apache-2.0
// op attend over lane16 caches: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx512/quant.h"
#include "kernel/cpu/avx512/vec.h"

#include "kernel/cpu/lane16/attend.inc"
#include "kernel/cpu/lane16/decode.inc"

namespace lacuna::kernel::avx512 {

extern const Kernel<op::Attend> attend;
const Kernel<op::Attend> attend{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .pack = PackFormat::lane16_f16,
    .why_not = prefill::why_not,
    .tasks = prefill::tasks,
    .scratch_bytes = prefill::scratch_bytes,
    .run = prefill::run,
};

extern const Kernel<op::Attend> attend_decode;
const Kernel<op::Attend> attend_decode{
    .name = "cpu.avx512.decode",
    .needs = kAvx512,
    .pack = PackFormat::lane16_f16,
    .why_not = decode::why_not,
    .phases = 2,
    .tasks = decode::tasks,
    .scratch_bytes = decode::scratch_bytes,
    .shared_bytes = decode::shared_bytes,
    .run = decode::run,
};

}  // namespace lacuna::kernel::avx512
