// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/segment_mass.h"

namespace lacuna::op {

// One group of rows of one head, in double.
void segment_mass_group_ref(const SegmentMass::Args& a, int head, int group);

}  // namespace lacuna::op
