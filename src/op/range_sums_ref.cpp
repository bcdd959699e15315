// SPDX-License-Identifier: Apache-2.0
#include "op/range_sums_ref.h"

#include "kv/element.h"

namespace lacuna::op {

void range_sums_ref(const RangeSums::Args& a, int range) {
  for (std::int32_t h = 0; h < a.heads; ++h)
    for (std::int32_t d = 0; d < a.dim; ++d) {
      double sum = 0;
      for (std::int64_t i = a.begin[range]; i < a.end[range]; ++i)
        sum += element(a.x, a.dtype, h * a.head + (a.place ? a.place[i] : i) * a.row + d);
      a.sum[(std::int64_t{h} * a.ranges + range) * a.dim + d] = static_cast<float>(sum);
    }
}

}  // namespace lacuna::op
