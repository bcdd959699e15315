// SPDX-License-Identifier: Apache-2.0
// op attend_grad in f32: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx512/quant.h"
#include "kernel/cpu/avx512/vec.h"

#include "kernel/cpu/lane16/attend_grad.inc"

namespace lacuna::kernel::avx512 {

extern const Kernel<op::AttendGrad> attend_grad;
const Kernel<op::AttendGrad> attend_grad{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .why_not = grad::why_not,
    .phases = 3,
    .tasks = grad::tasks,
    .scratch_bytes = grad::scratch_bytes,
    .shared_bytes = grad::shared_bytes,
    .run = grad::run,
};

}  // namespace lacuna::kernel::avx512
