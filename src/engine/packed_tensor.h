// SPDX-License-Identifier: Apache-2.0
// The inside of a PackedTensor, for the session that reads it.
#pragma once

#include "base/buffer.h"
#include "base/machine.h"
#include "engine/side.h"
#include "kv/packed.h"
#include "lacuna/lacuna.h"
#include "op/pack.h"

namespace lacuna {

// The packed form the best kernels of this machine read, for a cache of this type.
PackFormat choose_format(Features have, Dtype kv, Precision precision);

// Runs op pack for the part of `raw` the arguments name, in slices over the pool.
void pack_cells(Features have, op::Pack::Args args, ParallelFor* parallel);

op::Pack::Args pack_args(op::Pack::Role role, const Tensor& raw, const PackedView& to);

struct PackedTensor::Impl {
  Role role;
  Dtype dtype;
  Features have = 0;
  Buffer storage;
  PackedView view;
  std::size_t used_bytes = 0;
  SideStore side;  // of keys
};

}  // namespace lacuna
