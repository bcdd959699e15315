// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/range_sums.h"

namespace lacuna::op {

// One range of all heads, in double.
void range_sums_ref(const RangeSums::Args& a, int range);

}  // namespace lacuna::op
