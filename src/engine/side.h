// SPDX-License-Identifier: Apache-2.0
// SideStore: the memory of the side data (kv/side.h) beside one key cache, or made for one call.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/machine.h"
#include "kv/side.h"
#include "lacuna/lacuna.h"
#include "op/side_write.h"

namespace lacuna {

class SideStore {
 public:
  // The kinds of `spec` that fit a cache of this shape, all zeros. What was there before is gone.
  void open(const SideSpec& spec, Dtype cache, std::int64_t cells, int heads, int dim);
  void clear();
  SideStore like() const;  // another one of the same kinds and shape, all zeros
  const SideView& view() const { return view_; }
  bool empty() const { return bytes_.sum() == 0; }
  const SideBytes& bytes() const { return bytes_; }
  // Whether what is kept is what open() with these would make, for at least so many cells; perhaps among more.
  bool serves(const SideSpec& spec, std::int64_t cells, int heads, int dim) const;

 private:
  SideSpec spec_;  // what is kept; its channels are channels_
  Dtype cache_ = Dtype::f16;
  std::int64_t cells_ = 0;
  int heads_ = 0, dim_ = 0;
  SideView view_;
  SideBytes bytes_;
  Buffer pages_, int4_, int8_, labels_, pooled_;
  std::vector<std::int16_t> channels_;
};

// Arguments of op side_write, all but the cells. `raw` is the whole cache.
op::SideWrite::Args side_args(const Tensor& raw, const SideView& to);
// Runs op side_write, a range of cells in slices over the pool.
void write_side(Features have, op::SideWrite::Args args, ParallelFor* parallel);

// "" or the first difference between side data of one shape, by kind, cell or page, and head. Any NaN
// equals any other.
std::string first_difference(const SideView& kept, const SideView& anew);

// The same list, wherever its channels lie; shared, so that a cache can outlive the session.
SideRequest make_request(const SideSpec& spec);

}  // namespace lacuna
