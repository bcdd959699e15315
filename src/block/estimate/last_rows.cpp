// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/last_rows.h"

#include <algorithm>

#include "block/row_softmax.h"

namespace lacuna::block {

LineSums last_rows(const AttentionView& x, std::int32_t rows, Context& context, Wanted wanted) {
  const std::int64_t n = x.grid.n_keys;
  const auto size = static_cast<std::size_t>(x.grid.heads * n);
  float* vertical = context.scratch_as<float>(kColumnSlot, size);
  float* slash = context.scratch_as<float>(kSlashSlot, size);
  const std::int32_t first = x.grid.n_rows - rows;
  const FewRows few{x.q + first * x.q_row, x.q_head, x.q_row, rows, x.grid.first_key + first};
  for_key_scores(x, few, context, [&](std::int32_t h, float* score, std::int64_t score_row) {
    float *columns = vertical + h * n, *distances = slash + h * n;
    std::fill(columns, columns + n, 0.0f);
    std::fill(distances, distances + n, 0.0f);
    for (std::int32_t i = 0; i < rows; ++i) {
      float* p = score + i * score_row;
      const std::int64_t own = few.first_key + i;
      softmax(p, own + 1, x.scale);
      for (std::int64_t j = 0; j <= own; ++j) columns[j] += p[j];
      for (std::int64_t j = 0; j <= own; ++j) distances[own - j] += p[j];
    }
  }, wanted);
  return {vertical, slash};
}

}  // namespace lacuna::block
