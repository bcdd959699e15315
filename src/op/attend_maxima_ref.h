// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/attend_maxima.h"

namespace lacuna::op {

// One KV head's query heads.
void attend_maxima_group_ref(const AttendMaxima::Args& a, int kv_head);

}  // namespace lacuna::op
