// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What a processor's units can do at best, as loops to time: products whose operands never leave the registers, softmax
// weights of scores in the first cache, and reading memory from end to end. A kernel's time is held against these (the roofline).
#pragma once

#include <cstdint>

#include "base/machine.h"

namespace lacuna::kernel {

struct Peak {
  const char* kernels = "";  // bounds the kernel of this name, and those whose names go on with a dot
  Features needs = 0;
  double (*products)(std::int64_t rounds) = nullptr;  // returns how many FLOPs that was
  double (*weights)(std::int64_t rounds) = nullptr;   // returns how many weights that was
  void (*read)(const void* from, std::int64_t bytes) = nullptr;  // 64-byte aligned; bytes a multiple of 1024
};

extern const Peak* const kPeaks[];
extern const int kPeakCount;

}  // namespace lacuna::kernel
