// SPDX-License-Identifier: Apache-2.0
// Kernels of the ops that estimators are made of, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/alike.h"
#include "op/alike_ref.h"
#include "op/attend_maxima.h"
#include "op/attend_maxima_ref.h"
#include "op/line_sums.h"
#include "op/line_sums_ref.h"
#include "op/range_sums.h"
#include "op/range_sums_ref.h"
#include "op/segment_mass.h"
#include "op/segment_mass_ref.h"

namespace lacuna::kernel {
namespace ref {

extern const Kernel<op::LineSums> line_sums;
const Kernel<op::LineSums> line_sums{
    .name = "cpu.ref",
    .tasks = [](const op::LineSums::Args& a, int, int) { return a.hq; },
    .run = [](const op::LineSums::Args& a, int, int task, int, void*, void*) { op::line_sums_head_ref(a, task); },
};
extern const Kernel<op::SegmentMass> segment_mass;
const Kernel<op::SegmentMass> segment_mass{
    .name = "cpu.ref",
    .tasks = [](const op::SegmentMass::Args& a, int, int) { return a.heads * a.groups; },
    .run = [](const op::SegmentMass::Args& a, int, int task, int, void*,
              void*) { op::segment_mass_group_ref(a, task / a.groups, task % a.groups); },
};
extern const Kernel<op::Alike> alike_vectors;
const Kernel<op::Alike> alike_vectors{
    .name = "cpu.ref",
    .tasks = [](const op::Alike::Args& a, int, int) { return a.heads; },
    .run = [](const op::Alike::Args& a, int, int task, int, void*, void*) { op::alike_head_ref(a, task); },
};
extern const Kernel<op::RangeSums> range_sums;
const Kernel<op::RangeSums> range_sums{
    .name = "cpu.ref",
    .tasks = [](const op::RangeSums::Args& a, int, int) { return a.ranges; },
    .run = [](const op::RangeSums::Args& a, int, int task, int, void*, void*) { op::range_sums_ref(a, task); },
};

extern const Kernel<op::AttendMaxima> attend_maxima;
const Kernel<op::AttendMaxima> attend_maxima{
    .name = "cpu.ref",
    .tasks = [](const op::AttendMaxima::Args& a, int, int) { return a.hkv; },
    .run = [](const op::AttendMaxima::Args& a, int, int task, int, void*, void*) { op::attend_maxima_group_ref(a, task); },
};

}  // namespace ref

namespace amx {
extern const Kernel<op::LineSums> line_sums, line_sums_emulated;
extern const Kernel<op::AttendMaxima> attend_maxima, attend_maxima_emulated;
}
namespace avx512bf16 {
extern const Kernel<op::LineSums> line_sums;
extern const Kernel<op::AttendMaxima> attend_maxima;
}
namespace avx512 {
extern const Kernel<op::LineSums> line_sums;
extern const Kernel<op::SegmentMass> segment_mass;
extern const Kernel<op::Alike> alike_vectors;
extern const Kernel<op::RangeSums> range_sums;
extern const Kernel<op::AttendMaxima> attend_maxima;
}
namespace avx2 {
extern const Kernel<op::LineSums> line_sums;
extern const Kernel<op::SegmentMass> segment_mass;
extern const Kernel<op::Alike> alike_vectors;
extern const Kernel<op::RangeSums> range_sums;
extern const Kernel<op::AttendMaxima> attend_maxima;
}

namespace {
const Kernel<op::LineSums>* const kLineSums[] = {&amx::line_sums,    &amx::line_sums_emulated, &avx512bf16::line_sums,
                                                   &avx512::line_sums, &avx2::line_sums,           &ref::line_sums};
const Kernel<op::SegmentMass>* const kSegmentMass[] = {&avx512::segment_mass, &avx2::segment_mass, &ref::segment_mass};
const Kernel<op::Alike>* const kAlike[] = {&avx512::alike_vectors, &avx2::alike_vectors, &ref::alike_vectors};
const Kernel<op::RangeSums>* const kRangeSums[] = {&avx512::range_sums, &avx2::range_sums, &ref::range_sums};
const Kernel<op::AttendMaxima>* const kAttendMaxima[] = {&amx::attend_maxima,    &amx::attend_maxima_emulated, &avx512bf16::attend_maxima,
                                                           &avx512::attend_maxima, &avx2::attend_maxima,           &ref::attend_maxima};
}  // namespace

extern const KernelList<op::LineSums> line_sums_list;
const KernelList<op::LineSums> line_sums_list{std::begin(kLineSums), std::end(kLineSums)};
extern const KernelList<op::SegmentMass> segment_mass_list;
const KernelList<op::SegmentMass> segment_mass_list{std::begin(kSegmentMass), std::end(kSegmentMass)};
extern const KernelList<op::Alike> alike_list;
const KernelList<op::Alike> alike_list{std::begin(kAlike), std::end(kAlike)};
extern const KernelList<op::RangeSums> range_sums_list;
const KernelList<op::RangeSums> range_sums_list{std::begin(kRangeSums), std::end(kRangeSums)};
extern const KernelList<op::AttendMaxima> attend_maxima_list;
const KernelList<op::AttendMaxima> attend_maxima_list{std::begin(kAttendMaxima), std::end(kAttendMaxima)};

}  // namespace lacuna::kernel
