// SPDX-License-Identifier: Apache-2.0
// Side data of a key cache: the code of kernel/cpu/lane16 with this architecture's vectors.
#include "kernel/cpu/avx512/quant.h"
#include "kernel/cpu/avx512/side_vec.h"

#include "kernel/cpu/lane16/side_scores.inc"
#include "kernel/cpu/lane16/side_write.inc"

namespace lacuna::kernel::avx512 {

extern const Kernel<op::SideWrite> side_write;
const Kernel<op::SideWrite> side_write{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .why_not = writing::why_not,
    .tasks = writing::tasks,
    .run = writing::run,
};

extern const Kernel<op::PageScores> page_scores;
const Kernel<op::PageScores> page_scores{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = scoring::tasks<scoring::OfPages>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfPages>,
    .run = scoring::run<scoring::OfPages>,
};

extern const Kernel<op::LabelScores> label_scores;
const Kernel<op::LabelScores> label_scores{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = scoring::tasks<scoring::OfLabels>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfLabels>,
    .run = scoring::run<scoring::OfLabels>,
};

extern const Kernel<op::Int4Scores> int4_scores;
const Kernel<op::Int4Scores> int4_scores{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = scoring::tasks<scoring::OfInt4>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfInt4>,
    .run = scoring::run<scoring::OfInt4>,
};

extern const Kernel<op::Int8Scores> int8_scores;
const Kernel<op::Int8Scores> int8_scores{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = scoring::tasks<scoring::OfInt8>,
    .scratch_bytes = scoring::scratch_bytes<scoring::OfInt8>,
    .run = scoring::run<scoring::OfInt8>,
};

}  // namespace lacuna::kernel::avx512
