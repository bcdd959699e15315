// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// A tensor of rows of heads of a batch in the device's memory.
#pragma once

#include <cstdint>

namespace lacuna::kernel::cuda {

// Element (b, h, i, d) at b * batch + h * head + i * row + d, in elements; neighbours along d touch.
struct Tensor4 {
  void* data = nullptr;
  std::int64_t batch = 0, head = 0, row = 0;
};

}  // namespace lacuna::kernel::cuda
