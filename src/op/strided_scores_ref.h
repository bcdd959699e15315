// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/strided_scores.h"

namespace lacuna::op {

// One (query head, strided row).
void strided_scores_row_ref(const StridedScores::Args& a, int q_head, std::int64_t m);

}  // namespace lacuna::op
