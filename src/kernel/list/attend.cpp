// SPDX-License-Identifier: Apache-2.0
// Kernels of op attend, best first. Decode kernels (few rows, split over the cells) stand before the
// prefill kernels that would take the same call, or these yield to them.
#include <iterator>

#include "kernel/kernel.h"
#include "op/attend.h"
#include "op/attend_ref.h"

namespace lacuna::kernel {

namespace ref {

extern const Kernel<op::Attend> attend;
const Kernel<op::Attend> attend{
    .name = "cpu.ref",
    .tasks = [](const op::Attend::Args& a, int, int) { return a.n_rows; },  // heads x rows may pass 2^31
    .run = [](const op::Attend::Args& a, int, int task, int, void*, void*) {
      for (int h = 0; h < a.hq; ++h) op::attend_row_ref(a, h, task);
    },
};

}  // namespace ref

namespace amx {
extern const Kernel<op::Attend> attend, attend_emulated;
}
namespace avx512bf16 {
extern const Kernel<op::Attend> attend, attend_decode;
}
namespace avx512 {
extern const Kernel<op::Attend> attend, attend_decode;
}
namespace avx2 {
extern const Kernel<op::Attend> attend, attend_decode;
}

namespace {
const Kernel<op::Attend>* const kAttend[] = {
    &amx::attend,  // yields very few rows to the one below
    &amx::attend_emulated,
    &avx512bf16::attend_decode,
    &avx512bf16::attend,
    &avx512::attend_decode,
    &avx512::attend,
    &avx2::attend_decode,
    &avx2::attend,
    &ref::attend,
};
}  // namespace

extern const KernelList<op::Attend> attend_list;
const KernelList<op::Attend> attend_list{std::begin(kAttend), std::end(kAttend)};

}  // namespace lacuna::kernel
