// SPDX-License-Identifier: Apache-2.0
// op strided_scores over lane16 caches: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx2/vec.h"

#include "kernel/cpu/lane16/strided_scores.inc"

namespace lacuna::kernel::avx2 {

extern const Kernel<op::StridedScores> strided_scores;
const Kernel<op::StridedScores> strided_scores{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .pack = PackFormat::lane16_f16,
    .why_not = strided::why_not,
    .tasks = strided::tasks,
    .scratch_bytes = strided::scratch_bytes,
    .run = strided::run,
};

}  // namespace lacuna::kernel::avx2
