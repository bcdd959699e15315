// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// kernel/cuda/prefill.h for compute capability 9.0 (H100, H200): tensor cores and TMA, one producer warpgroup and one
// to three consumers (consume.cuh, produce.cuh).
#pragma once

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda::sm90a {

const char* prefill_why_not(const Prefill& a);
const char* prefill(const Prefill& a, void* stream);

}  // namespace lacuna::kernel::cuda::sm90a
