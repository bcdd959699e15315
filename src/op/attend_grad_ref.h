// SPDX-License-Identifier: Apache-2.0
// The specification of op attend_grad, in double precision over the raw tensors.
#pragma once

#include "op/attend_grad.h"

namespace lacuna::op {

// All gradients of one KV head and its query heads.
void attend_grad_ref(const AttendGrad::Args& a, int kv_head);

}  // namespace lacuna::op
