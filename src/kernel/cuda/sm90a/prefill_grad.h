// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// kernel/cuda/prefill_grad.h for compute capability 9.0 (H100, H200): a pass over tiles of queries for dq and one over
// tiles of keys for dk and dv (above 128 channels one for each), all by one kernel (grad_consume.cuh). a.rows must have
// been filled (grad_rows.h).
#pragma once

#include "kernel/cuda/prefill_grad.h"

namespace lacuna::kernel::cuda::sm90a {

const char* prefill_grad_why_not(const PrefillGrad& a);
const char* prefill_grad(const PrefillGrad& a, void* stream);

}  // namespace lacuna::kernel::cuda::sm90a
