// SPDX-License-Identifier: Apache-2.0
// The specification of op attend_grad, in double precision over the raw tensors.
#pragma once

#include "op/attend_grad.h"

namespace lacuna::op {

// All gradients of one KV head and its query heads.
void attend_grad_ref(const AttendGrad::Args& a, int kv_head);

// What is in a call that no kernel differentiates, the reference neither; null = nothing.
const char* why_not_differentiable(const AttendGrad::Args& a);

}  // namespace lacuna::op
