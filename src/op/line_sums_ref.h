// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/line_sums.h"

namespace lacuna::op {

// One query head.
void line_sums_head_ref(const LineSums::Args& a, int q_head);

}  // namespace lacuna::op
