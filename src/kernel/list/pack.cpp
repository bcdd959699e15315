// SPDX-License-Identifier: Apache-2.0
// Kernels of op pack, best first.
#include <iterator>

#include "kernel/kernel.h"
#include "op/pack.h"
#include "op/pack_ref.h"

namespace lacuna::kernel {
namespace ref {

extern const Kernel<op::Pack> pack;
const Kernel<op::Pack> pack{
    .name = "cpu.ref",
    .tasks = [](const op::Pack::Args&, int, int) { return 1; },
    .run = [](const op::Pack::Args& a, int, int, int, void*, void*) { op::pack_ref(a); },
};

}  // namespace ref

namespace avx512 {
extern const Kernel<op::Pack> pack;
}
namespace avx2 {
extern const Kernel<op::Pack> pack_lane16;
}

namespace {
const Kernel<op::Pack>* const kPack[] = {
    &avx512::pack,
    &avx2::pack_lane16,
    &ref::pack,
};
}  // namespace

extern const KernelList<op::Pack> pack_list;
const KernelList<op::Pack> pack_list{std::begin(kPack), std::end(kPack)};

}  // namespace lacuna::kernel
