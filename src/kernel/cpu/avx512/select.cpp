// SPDX-License-Identifier: Apache-2.0
// Selection by scores: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx512/quant.h"
#include "kernel/cpu/avx512/side_vec.h"

#include "kernel/cpu/lane16/exact_mass.inc"
#include "kernel/cpu/lane16/keep_mass.inc"
#include "kernel/cpu/lane16/top_weights.inc"

namespace lacuna::kernel::avx512 {

extern const Kernel<op::KeepMass> keep_mass;
const Kernel<op::KeepMass> keep_mass{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = mass::tasks,
    .scratch_bytes = mass::scratch_bytes,
    .run = mass::run,
};
extern const Kernel<op::ExactMass> exact_mass;
const Kernel<op::ExactMass> exact_mass{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .why_not = exact::why_not,
    .tasks = exact::tasks,
    .scratch_bytes = exact::scratch_bytes,
    .run = exact::run,
};
extern const Kernel<op::TopWeights> top_weights;
const Kernel<op::TopWeights> top_weights{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = top::tasks,
    .scratch_bytes = top::scratch_bytes,
    .run = top::run,
};

}  // namespace lacuna::kernel::avx512
