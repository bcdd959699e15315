// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Op attend on an NVIDIA GPU. The arguments are those of op/attend.h with every pointer in the device's
// memory (of runs too); packed copies are not read.
#pragma once

#include "op/attend.h"

namespace lacuna::kernel::cuda {

// Why no kernel takes the call, in words a user understands; null = one does.
const char* attend_why_not(const op::Attend::Args& a);

// Starts the kernel on `stream` (a cudaStream_t) and returns at once; null = started, else CUDA's words.
// A call that attend_why_not() refuses must not come here.
const char* attend(const op::Attend::Args& a, void* stream);

}  // namespace lacuna::kernel::cuda
