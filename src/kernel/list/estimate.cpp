// SPDX-License-Identifier: Apache-2.0
// Kernels of the ops that estimators are made of, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/alike.h"
#include "op/alike_ref.h"
#include "op/line_sums.h"
#include "op/line_sums_ref.h"
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

}  // namespace ref

namespace amx {
extern const Kernel<op::LineSums> line_sums, line_sums_emulated;
}
namespace avx512bf16 {
extern const Kernel<op::LineSums> line_sums;
}
namespace avx512 {
extern const Kernel<op::LineSums> line_sums;
extern const Kernel<op::SegmentMass> segment_mass;
extern const Kernel<op::Alike> alike_vectors;
}
namespace avx2 {
extern const Kernel<op::LineSums> line_sums;
extern const Kernel<op::SegmentMass> segment_mass;
extern const Kernel<op::Alike> alike_vectors;
}

namespace {
const Kernel<op::LineSums>* const kLineSums[] = {&amx::line_sums,    &amx::line_sums_emulated, &avx512bf16::line_sums,
                                                   &avx512::line_sums, &avx2::line_sums,           &ref::line_sums};
const Kernel<op::SegmentMass>* const kSegmentMass[] = {&avx512::segment_mass, &avx2::segment_mass, &ref::segment_mass};
const Kernel<op::Alike>* const kAlike[] = {&avx512::alike_vectors, &avx2::alike_vectors, &ref::alike_vectors};
}  // namespace

extern const KernelList<op::LineSums> line_sums_list;
const KernelList<op::LineSums> line_sums_list{std::begin(kLineSums), std::end(kLineSums)};
extern const KernelList<op::SegmentMass> segment_mass_list;
const KernelList<op::SegmentMass> segment_mass_list{std::begin(kSegmentMass), std::end(kSegmentMass)};
extern const KernelList<op::Alike> alike_list;
const KernelList<op::Alike> alike_list{std::begin(kAlike), std::end(kAlike)};

}  // namespace lacuna::kernel
