// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// kernel/cuda/prefill_grad.h for any GPU from sm_80 on and any head dimensions up to 256: plain, and slow. a.rows
// must have been filled (grad_rows.h).
#pragma once

#include "kernel/cuda/prefill_grad.h"

namespace lacuna::kernel::cuda::sm80 {

const char* prefill_grad_why_not(const PrefillGrad& a);
const char* prefill_grad(const PrefillGrad& a, void* stream);

}  // namespace lacuna::kernel::cuda::sm80
