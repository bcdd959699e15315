// SPDX-License-Identifier: Apache-2.0
// The inside of a PackedTensor, for the session that reads it.
#pragma once

#include "base/buffer.h"
#include "base/machine.h"
#include "engine/pick.h"
#include "engine/side.h"
#include "kv/packed.h"
#include "lacuna/lacuna.h"
#include "op/pack.h"

namespace lacuna {

// The packed form in which kernel k reads a cache of this type: a lane16 kernel reads both of its
// forms, and only f16 keeps its bits in the narrow one.
template <class Op>
PackFormat format_for(const kernel::Kernel<Op>& k, Dtype kv) {
  return k.pack == PackFormat::lane16_f16 && kv != Dtype::f16 ? PackFormat::lane16_f32 : k.pack;
}

// K and V have one packed form between them: that of the type whose numbers hold both's.
constexpr Dtype both_in(Dtype k, Dtype v) { return k == v ? k : Dtype::f32; }

// The packed form that the forced kernel reads, else the best kernels of this machine, for a cache of
// this type. A forced kernel that reads raw tensors leaves the choice to what methods read.
PackFormat choose_format(Features have, Dtype kv, Precision precision, const kernel::Kernel<op::Attend>* forced = nullptr);

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
