// SPDX-License-Identifier: Apache-2.0
// Kernels of op strided_scores, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/strided_scores.h"
#include "op/strided_scores_ref.h"

namespace lacuna::kernel {
namespace ref {

extern const Kernel<op::StridedScores> strided_scores;
const Kernel<op::StridedScores> strided_scores{
    .name = "cpu.ref",
    .tasks = [](const op::StridedScores::Args& a, int, int) { return static_cast<int>(a.m_rows()); },
    .run = [](const op::StridedScores::Args& a, int, int task, int, void*, void*) {
      for (int h = 0; h < a.hq; ++h) op::strided_scores_row_ref(a, h, task);
    },
};

}  // namespace ref

namespace amx {
extern const Kernel<op::StridedScores> strided_scores, strided_scores_emulated;
}
namespace avx512bf16 {
extern const Kernel<op::StridedScores> strided_scores;
}
namespace avx512 {
extern const Kernel<op::StridedScores> strided_scores;
}
namespace avx2 {
extern const Kernel<op::StridedScores> strided_scores;
}

namespace {
const Kernel<op::StridedScores>* const kStridedScores[] = {
    &amx::strided_scores,
    &amx::strided_scores_emulated,
    &avx512bf16::strided_scores,
    &avx512::strided_scores,
    &avx2::strided_scores,
    &ref::strided_scores,
};
}  // namespace

extern const KernelList<op::StridedScores> strided_scores_list;
const KernelList<op::StridedScores> strided_scores_list{std::begin(kStridedScores), std::end(kStridedScores)};

}  // namespace lacuna::kernel
