// SPDX-License-Identifier: Apache-2.0
#include "kernel/cpu/avx512/vec.h"

#include "kernel/cpu/lane16/peak.inc"

namespace lacuna::kernel::avx512 {

extern const Peak peak;
const Peak peak{.kernels = "cpu.avx512", .needs = kAvx512, .products = peak_products, .weights = peak_weights, .read = peak_read};

}  // namespace lacuna::kernel::avx512
