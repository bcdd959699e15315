// SPDX-License-Identifier: Apache-2.0
#include "kernel/peak.h"

#include <iterator>

namespace lacuna::kernel {

namespace amx {
extern const Peak peak;
}
namespace avx512bf16 {
extern const Peak peak;
}
namespace avx512 {
extern const Peak peak;
}
namespace avx2 {
extern const Peak peak;
}

const Peak* const kPeaks[] = {&amx::peak, &avx512bf16::peak, &avx512::peak, &avx2::peak};
const int kPeakCount = static_cast<int>(std::size(kPeaks));

}  // namespace lacuna::kernel
