// SPDX-License-Identifier: Apache-2.0
// Some query rows of a call, seen as a call of their own.
#pragma once

#include <cstdint>

#include "op/attention_view.h"

namespace lacuna::block {

// Rows [begin, end) of x, 0 <= begin < end <= x.grid.n_rows, and the keys up to the last one's own: for the estimates here, by
// key number. x.cells stays that of all rows.
inline AttentionView rows_of(const AttentionView& x, std::int32_t begin, std::int32_t end) {
  AttentionView part = x;
  part.q = x.q + begin * x.q_row;
  part.grid.n_rows = end - begin;
  part.grid.first_key = x.grid.first_key + begin;
  part.grid.n_keys = x.grid.first_key + end;
  return part;
}

}  // namespace lacuna::block
