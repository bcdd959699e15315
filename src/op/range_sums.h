// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op range_sums: sums of neighbouring vectors, as means of blocks are made of.
//   sum[h, r] = x[h, begin[r]] + .. + x[h, end[r] - 1]
// A channel with a NaN, or with infinities of both signs, is NaN.
#pragma once

#include <cstdint>

#include "lacuna/dtype.h"

namespace lacuna::op {

struct RangeSums {
  static constexpr const char* kName = "range_sums";

  struct Args {
    std::int32_t heads = 0, dim = 0, ranges = 0;
    const std::int64_t *begin = nullptr, *end = nullptr;  // [ranges], 0 <= begin <= end
    Dtype dtype = Dtype::f32;
    const void* x = nullptr;    // channels of vector i lie at h * head + (place ? place[i] : i) * row, in elements
    std::int64_t head = 0, row = 0;
    const std::int32_t* place = nullptr;
    float* sum = nullptr;       // element (h, r, d) at (h * ranges + r) * dim + d
  };
};

}  // namespace lacuna::op
