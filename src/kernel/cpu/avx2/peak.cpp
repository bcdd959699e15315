// SPDX-License-Identifier: Apache-2.0
#include "kernel/cpu/avx2/vec.h"

#include "kernel/cpu/lane16/peak.inc"

namespace lacuna::kernel::avx2 {

extern const Peak peak;
const Peak peak{.kernels = "cpu.avx2", .needs = kAvx2, .products = peak_products, .weights = peak_weights, .read = peak_read};

}  // namespace lacuna::kernel::avx2
