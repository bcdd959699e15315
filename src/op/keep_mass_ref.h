// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/keep_mass.h"

namespace lacuna::op {

// One row, by sorting, in double.
void keep_mass_row_ref(const KeepMass::Args& a, int row);

}  // namespace lacuna::op
