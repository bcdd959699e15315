// SPDX-License-Identifier: Apache-2.0
// The textbook formula of op attend in plain f32, its operands and weights rounded as a kernel's
// packed form rounds them: the yardstick of FlashAttention's rule (docs/laws.md, `bound`).
#pragma once

#include "kv/packed.h"
#include "op/attend.h"

namespace lacuna::cli {

// One (query head, row): a.out and a.lse are written as attend_row_ref writes them.
void attend_row_plain(const op::Attend::Args& a, PackFormat like, int q_head, int row);

}  // namespace lacuna::cli
