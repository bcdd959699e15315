// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/last_rows.h"

#include "op/line_sums.h"

namespace lacuna::block {

LineSums last_rows(const AttentionView& x, std::int32_t rows, Context& context, Wanted wanted) {
  constexpr std::int64_t kSumFloats = 8 << 20;  // that a kernel may need beside the result
  const std::int64_t n = x.grid.n_keys;
  const std::int32_t first_row = x.grid.n_rows - rows;
  const auto size = static_cast<std::size_t>(x.grid.heads * n);
  float* vertical = context.scratch_as<float>(kColumnSlot, size);
  float* slash = context.scratch_as<float>(kSlashSlot, size);
  const OrderedKeys keys = x.keys->ordered();
  for_wanted_groups(x, wanted, kSumFloats / (4 * n * (x.grid.heads / x.hkv)),
                    [&](std::int32_t first, std::int32_t heads, std::int32_t kv, std::int32_t kv_heads) {
    context.run<op::LineSums>({.hq = heads,
                               .hkv = kv_heads,
                               .dk = x.dk,
                               .n_rows = rows,
                               .n_keys = n,
                               .first_cell = keys.first_cell,
                               .first_key = x.grid.first_key + first_row,
                               .q = x.q + std::int64_t{first} * x.q_head + first_row * x.q_row,
                               .q_head = x.q_head,
                               .q_row = x.q_row,
                               .packed_k = from_head(keys.packed, kv),
                               .scale = x.scale,
                               .vertical = vertical + first * n,
                               .slash = slash + first * n});
  });
  return {vertical, slash};
}

}  // namespace lacuna::block
