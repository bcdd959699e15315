// SPDX-License-Identifier: Apache-2.0
// What the model allows, as a host hands it over: an additive mask in half precision, and where the
// rows and cells stand in their sequences, as far as the host knows.
#pragma once

#include <cstdint>

namespace lacuna {

// f16 [n_rows][n_cells]: 0 = visible, -infinity = hidden, other finite values = a bias (ALiBi).
// Borrowed: must stay as it is until Session::attend returns. data == null: causal, cells in order,
// the last row sees the last cell.
struct Mask {
  const std::uint16_t* data = nullptr;
  std::int64_t row_stride = 0;  // elements
  // Optional side knowledge, each null if unknown, -1 per unknown entry:
  const std::int32_t* row_cell = nullptr;  // [n_rows] the cell in which the row's own key lies
  const std::int32_t* cell_pos = nullptr;  // [n_cells] position of the key in its sequence
};

}  // namespace lacuna
