// SPDX-License-Identifier: Apache-2.0
// Parts of estimators: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx2/quant.h"
#include "kernel/cpu/avx2/side_vec.h"

#include "kernel/cpu/lane16/alike.inc"
#include "kernel/cpu/lane16/attend_maxima.inc"
#include "kernel/cpu/lane16/line_sums.inc"
#include "kernel/cpu/lane16/range_sums.inc"
#include "kernel/cpu/lane16/segment_mass.inc"

namespace lacuna::kernel::avx2 {

extern const Kernel<op::LineSums> line_sums;
const Kernel<op::LineSums> line_sums{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .pack = PackFormat::lane16_f16,
    .why_not = lines::why_not,
    .phases = 2,
    .tasks = lines::tasks,
    .scratch_bytes = lines::scratch_bytes<lines::Lane16Scores>,
    .shared_bytes = lines::shared_bytes,
    .run = lines::run<lines::Lane16Scores>,
};
extern const Kernel<op::AttendMaxima> attend_maxima;
const Kernel<op::AttendMaxima> attend_maxima{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .pack = PackFormat::lane16_f16,
    .why_not = maxima::why_not_lane16,
    .phases = 2,
    .tasks = maxima::tasks,
    .scratch_bytes = maxima::scratch_bytes<lines::Lane16Scores>,
    .shared_bytes = maxima::shared_bytes,
    .run = maxima::run<lines::Lane16Scores>,
};
extern const Kernel<op::SegmentMass> segment_mass;
const Kernel<op::SegmentMass> segment_mass{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .tasks = segments::tasks,
    .scratch_bytes = segments::scratch_bytes,
    .run = segments::run,
};
extern const Kernel<op::Alike> alike_vectors;
const Kernel<op::Alike> alike_vectors{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .tasks = alike::tasks,
    .scratch_bytes = alike::scratch_bytes,
    .run = alike::run,
};
extern const Kernel<op::RangeSums> range_sums;
const Kernel<op::RangeSums> range_sums{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .tasks = ranges::tasks,
    .run = ranges::run,
};

}  // namespace lacuna::kernel::avx2
