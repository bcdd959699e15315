// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// kernel/cuda/prefill.h for any GPU from sm_80 on and any head dimensions up to 256: plain, and slow.
#pragma once

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda::sm80 {

const char* prefill_why_not(const Prefill& a);
const char* prefill(const Prefill& a, void* stream);

}  // namespace lacuna::kernel::cuda::sm80
