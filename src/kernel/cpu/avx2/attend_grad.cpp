// SPDX-License-Identifier: Apache-2.0
// op attend_grad in f32: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx2/quant.h"
#include "kernel/cpu/avx2/vec.h"

#include "kernel/cpu/lane16/attend_grad.inc"

namespace lacuna::kernel::avx2 {

extern const Kernel<op::AttendGrad> attend_grad;
const Kernel<op::AttendGrad> attend_grad{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .why_not = grad::why_not,
    .phases = 3,
    .tasks = grad::tasks,
    .scratch_bytes = grad::scratch_bytes,
    .shared_bytes = grad::shared_bytes,
    .run = grad::run,
};

}  // namespace lacuna::kernel::avx2
