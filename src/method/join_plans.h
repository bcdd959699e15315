// SPDX-License-Identifier: Apache-2.0
// One plan out of several of one call, each of which some query heads take (docs/decisions/014).
#pragma once

#include <span>

#include "method/method.h"

namespace lacuna {

// Head h takes plans[of[h]]; of[h] < 0: everything. What does not go together with what came before (blocks of
// another number of rows, more patterns than a plan may hold) is given up: its heads take everything. The plan
// gives no reasons: those of the parts hold for some heads only.
Plan join_plans(std::span<const Plan> plans, std::span<const int> of);

// For one row, which reads the keys of a KV head once for all its query heads: the heads of a group take one
// pattern, the widest window among theirs; everything where one of them has no window.
void share_windows(Plan& plan, std::int32_t q_heads, std::int32_t kv_heads);

}  // namespace lacuna
