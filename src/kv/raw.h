// SPDX-License-Identifier: Apache-2.0
// RawKeys: the keys (or values) of one sequence as they lie in the host's cache, read as floats by key
// number. Slow and exact: for calibration and tests; kernels read PackedView.
#pragma once

#include <cstdint>

#include "kv/element.h"

namespace lacuna {

struct RawKeys {
  const void* data = nullptr;  // borrowed until the call ends
  Dtype dtype = Dtype::f32;
  std::int64_t head = 0, cell = 0;  // strides in elements; channels lie side by side
  std::int32_t dim = 0;
  std::int64_t first_cell = 0;                  // key j lies in cell first_cell + j,
  const std::int32_t* cell_of_key = nullptr;    // or, if set, in cell_of_key[j]

  // The `dim` channels of key j of a KV head.
  void read(int kv_head, std::int64_t key, float* out) const {
    const std::int64_t at = kv_head * head + (cell_of_key ? cell_of_key[key] : first_cell + key) * cell;
    for (std::int32_t d = 0; d < dim; ++d) out[d] = element(data, dtype, at + d);
  }
};

}  // namespace lacuna
