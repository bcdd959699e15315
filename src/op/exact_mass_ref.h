// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/exact_mass.h"

namespace lacuna::op {

// One part of one query head, in double precision.
void exact_mass_ref(const ExactMass::Args& a, int head, std::int64_t part);

}  // namespace lacuna::op
