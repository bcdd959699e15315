// SPDX-License-Identifier: Apache-2.0
// The specification of op attend, in double precision over the raw tensors.
#pragma once

#include <cstdint>

#include "op/attend.h"

namespace lacuna::op {

// One (query head, row): the whole of the contract in attend.h. Takes any Args.
void attend_row_ref(const Attend::Args& a, int q_head, int row);
// The logit of one pair: scaled, capped, with its bias.
double score_ref(const Attend::Args& a, int q_head, int row, std::int64_t cell);

}  // namespace lacuna::op
