// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/top_weights.h"

namespace lacuna::op {

// One row, by sorting, in double.
void top_weights_row_ref(const TopWeights::Args& a, int row);

}  // namespace lacuna::op
