// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/alike.h"

namespace lacuna::op {

// One head, in double.
void alike_head_ref(const Alike::Args& a, int head);

}  // namespace lacuna::op
