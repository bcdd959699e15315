// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "op/pack.h"

namespace lacuna::op {

// The whole job, one element at a time.
void pack_ref(const Pack::Args& a);

// Where element (cell, channel) of one head's block lies, in elements: the layouts of kv/packed.h.
std::int64_t packed_offset(Pack::Role role, PackFormat format, int dim, int cell_in_tile, int channel);

}  // namespace lacuna::op
