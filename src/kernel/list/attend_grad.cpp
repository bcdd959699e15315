// SPDX-License-Identifier: Apache-2.0
// Kernels of op attend_grad, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/attend_grad.h"
#include "op/attend_grad_ref.h"

namespace lacuna::kernel {
namespace ref {
extern const Kernel<op::AttendGrad> attend_grad;
const Kernel<op::AttendGrad> attend_grad{
    .name = "cpu.ref",
    .why_not = [](const op::AttendGrad::Args& a, int) { return op::why_not_differentiable(a); },
    .tasks = [](const op::AttendGrad::Args& a, int, int) { return static_cast<int>(a.forward.hkv); },
    .run = [](const op::AttendGrad::Args& a, int, int task, int, void*, void*) { op::attend_grad_ref(a, task); },
};
}  // namespace ref

namespace amx {
extern const Kernel<op::AttendGrad> attend_grad, attend_grad_emulated;
}
namespace avx512 {
extern const Kernel<op::AttendGrad> attend_grad;
}
namespace avx2 {
extern const Kernel<op::AttendGrad> attend_grad;
}

namespace {
const Kernel<op::AttendGrad>* const kAttendGrad[] = {
    &amx::attend_grad, &amx::attend_grad_emulated, &avx512::attend_grad, &avx2::attend_grad, &ref::attend_grad,
};
}  // namespace

extern const KernelList<op::AttendGrad> attend_grad_list;
const KernelList<op::AttendGrad> attend_grad_list{std::begin(kAttendGrad), std::end(kAttendGrad)};

}  // namespace lacuna::kernel
