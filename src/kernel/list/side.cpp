// SPDX-License-Identifier: Apache-2.0
// Kernels of the ops on side data, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/side_scores.h"
#include "op/side_scores_ref.h"
#include "op/side_write.h"
#include "op/side_write_ref.h"

namespace lacuna::kernel {
namespace ref {

extern const Kernel<op::SideWrite> side_write;
const Kernel<op::SideWrite> side_write{
    .name = "cpu.ref",
    .tasks = [](const op::SideWrite::Args&, int, int) { return 1; },
    .run = [](const op::SideWrite::Args& a, int, int, int, void*, void*) { op::side_write_ref(a); },
};
extern const Kernel<op::PageScores> page_scores;
const Kernel<op::PageScores> page_scores{
    .name = "cpu.ref",
    .tasks = [](const op::PageScores::Args& a, int, int) { return a.hkv; },
    .run = [](const op::PageScores::Args& a, int, int task, int, void*, void*) { op::page_scores_ref(a, task); },
};
extern const Kernel<op::LabelScores> label_scores;
const Kernel<op::LabelScores> label_scores{
    .name = "cpu.ref",
    .tasks = [](const op::LabelScores::Args& a, int, int) { return a.hkv; },
    .run = [](const op::LabelScores::Args& a, int, int task, int, void*, void*) { op::label_scores_ref(a, task); },
};
extern const Kernel<op::Int4Scores> int4_scores;
const Kernel<op::Int4Scores> int4_scores{
    .name = "cpu.ref",
    .tasks = [](const op::Int4Scores::Args& a, int, int) { return a.hkv; },
    .run = [](const op::Int4Scores::Args& a, int, int task, int, void*, void*) { op::int4_scores_ref(a, task); },
};
extern const Kernel<op::Int8Scores> int8_scores;
const Kernel<op::Int8Scores> int8_scores{
    .name = "cpu.ref",
    .tasks = [](const op::Int8Scores::Args& a, int, int) { return a.hkv; },
    .run = [](const op::Int8Scores::Args& a, int, int task, int, void*, void*) { op::int8_scores_ref(a, task); },
};

}  // namespace ref

namespace amx {
extern const Kernel<op::Int8Scores> int8_scores, int8_scores_emulated;
}
namespace avx512vnni {
extern const Kernel<op::Int4Scores> int4_scores;
extern const Kernel<op::Int8Scores> int8_scores;
}
namespace avx512 {
extern const Kernel<op::SideWrite> side_write;
extern const Kernel<op::PageScores> page_scores;
extern const Kernel<op::LabelScores> label_scores;
extern const Kernel<op::Int4Scores> int4_scores;
extern const Kernel<op::Int8Scores> int8_scores;
}
namespace avx2 {
extern const Kernel<op::SideWrite> side_write;
extern const Kernel<op::PageScores> page_scores;
extern const Kernel<op::LabelScores> label_scores;
extern const Kernel<op::Int4Scores> int4_scores;
extern const Kernel<op::Int8Scores> int8_scores;
}

namespace {
const Kernel<op::SideWrite>* const kSideWrite[] = {&avx512::side_write, &avx2::side_write, &ref::side_write};
const Kernel<op::PageScores>* const kPageScores[] = {&avx512::page_scores, &avx2::page_scores, &ref::page_scores};
const Kernel<op::LabelScores>* const kLabelScores[] = {&avx512::label_scores, &avx2::label_scores, &ref::label_scores};
const Kernel<op::Int4Scores>* const kInt4Scores[] = {&avx512vnni::int4_scores, &avx512::int4_scores, &avx2::int4_scores,
                                                       &ref::int4_scores};
const Kernel<op::Int8Scores>* const kInt8Scores[] = {&amx::int8_scores,    &avx512vnni::int8_scores, &avx512::int8_scores,
                                                       &avx2::int8_scores,   &ref::int8_scores,        &amx::int8_scores_emulated};
}  // namespace

extern const KernelList<op::SideWrite> side_write_list;
const KernelList<op::SideWrite> side_write_list{std::begin(kSideWrite), std::end(kSideWrite)};
extern const KernelList<op::PageScores> page_scores_list;
const KernelList<op::PageScores> page_scores_list{std::begin(kPageScores), std::end(kPageScores)};
extern const KernelList<op::LabelScores> label_scores_list;
const KernelList<op::LabelScores> label_scores_list{std::begin(kLabelScores), std::end(kLabelScores)};
extern const KernelList<op::Int4Scores> int4_scores_list;
const KernelList<op::Int4Scores> int4_scores_list{std::begin(kInt4Scores), std::end(kInt4Scores)};
extern const KernelList<op::Int8Scores> int8_scores_list;
const KernelList<op::Int8Scores> int8_scores_list{std::begin(kInt8Scores), std::end(kInt8Scores)};

}  // namespace lacuna::kernel
