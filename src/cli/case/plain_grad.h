// SPDX-License-Identifier: Apache-2.0
// The textbook formulas of op attend_grad in plain f32, operands of products rounded to bf16 if asked for: the
// yardstick of FlashAttention's rule (docs/laws.md, `bound`).
#pragma once

#include "op/attend_grad.h"

namespace lacuna::cli {

// One KV head: dq, dk and dv are written as attend_grad_ref writes them.
void attend_grad_plain(const op::AttendGrad::Args& a, bool bf16, int kv_head);

}  // namespace lacuna::cli
