// SPDX-License-Identifier: Apache-2.0
// Kernels of the ops that choose by scores, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/exact_mass.h"
#include "op/exact_mass_ref.h"
#include "op/keep_mass.h"
#include "op/keep_mass_ref.h"
#include "op/top_weights.h"
#include "op/top_weights_ref.h"

namespace lacuna::kernel {
namespace ref {
extern const Kernel<op::KeepMass> keep_mass;
const Kernel<op::KeepMass> keep_mass{
    .name = "cpu.ref",
    .tasks = [](const op::KeepMass::Args& a, int, int) { return a.rows; },
    .run = [](const op::KeepMass::Args& a, int, int task, int, void*, void*) { op::keep_mass_row_ref(a, task); },
};
extern const Kernel<op::TopWeights> top_weights;
const Kernel<op::TopWeights> top_weights{
    .name = "cpu.ref",
    .tasks = [](const op::TopWeights::Args& a, int, int) { return a.rows; },
    .run = [](const op::TopWeights::Args& a, int, int task, int, void*, void*) { op::top_weights_row_ref(a, task); },
};
extern const Kernel<op::ExactMass> exact_mass;
const Kernel<op::ExactMass> exact_mass{
    .name = "cpu.ref",
    .tasks = [](const op::ExactMass::Args& a, int, int) { return a.hq; },
    .run = [](const op::ExactMass::Args& a, int, int task, int, void*, void*) {
      for (std::int64_t part = 0; part < a.parts(); ++part) op::exact_mass_ref(a, task, part);
    },
};
}  // namespace ref

namespace avx512 {
extern const Kernel<op::KeepMass> keep_mass;
extern const Kernel<op::TopWeights> top_weights;
extern const Kernel<op::ExactMass> exact_mass;
}
namespace avx2 {
extern const Kernel<op::KeepMass> keep_mass;
extern const Kernel<op::TopWeights> top_weights;
extern const Kernel<op::ExactMass> exact_mass;
}

namespace {
const Kernel<op::KeepMass>* const kKeepMass[] = {&avx512::keep_mass, &avx2::keep_mass, &ref::keep_mass};
const Kernel<op::TopWeights>* const kTopWeights[] = {&avx512::top_weights, &avx2::top_weights, &ref::top_weights};
const Kernel<op::ExactMass>* const kExactMass[] = {&avx512::exact_mass, &avx2::exact_mass, &ref::exact_mass};
}

extern const KernelList<op::KeepMass> keep_mass_list;
const KernelList<op::KeepMass> keep_mass_list{std::begin(kKeepMass), std::end(kKeepMass)};
extern const KernelList<op::TopWeights> top_weights_list;
const KernelList<op::TopWeights> top_weights_list{std::begin(kTopWeights), std::end(kTopWeights)};
extern const KernelList<op::ExactMass> exact_mass_list;
const KernelList<op::ExactMass> exact_mass_list{std::begin(kExactMass), std::end(kExactMass)};

}  // namespace lacuna::kernel
