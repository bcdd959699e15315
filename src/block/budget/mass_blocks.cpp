// SPDX-License-Identifier: Apache-2.0
#include "block/budget/mass_blocks.h"

#include <algorithm>

#include "block/budget/top_mass.h"
#include "block/slots.h"

namespace lacuna::block {

BlockMap keep_mass(const MassBlocks& m, const float* score, Context& context) {
  const Grid& g = m.grid;
  BlockMap map;
  map.heads = g.heads;
  map.block_q = map.block_k = m.block;
  map.n_rows = g.n_rows;
  map.n_keys = g.n_keys;
  const std::int32_t row_blocks = map.q_blocks();
  const auto key_blocks = static_cast<std::int32_t>(map.k_blocks());
  const std::int32_t lists = g.heads * row_blocks;
  auto* kept = context.scratch_as<std::int32_t>(kKeptSlot, static_cast<std::size_t>(lists) * key_blocks);
  auto* count = context.scratch_as<std::int32_t>(kCountSlot, static_cast<std::size_t>(lists));
  auto* work = context.scratch_as<float>(kWorkSlot, static_cast<std::size_t>(context.threads().workers()) * key_blocks);
  const auto sinks = static_cast<std::int32_t>(std::min<std::int64_t>((m.sink + m.block - 1) / m.block, key_blocks));

  context.threads().each(lists, [&](int task, int worker) {
    const std::int64_t first_row = std::int64_t{task % row_blocks} * m.block;
    const std::int64_t first_own = g.first_key + first_row;
    const std::int64_t last_own = g.first_key + std::min<std::int64_t>(first_row + m.block, g.n_rows) - 1;
    const auto n = static_cast<std::int32_t>(std::min<std::int64_t>(last_own / m.block + 1, key_blocks));
    const std::int64_t oldest = std::max<std::int64_t>(0, first_own - std::max<std::int64_t>(m.window, 1) + 1);
    const std::int64_t at = std::int64_t{task} * key_blocks;
    count[task] = top_mass(score + at, n, std::min(sinks, n), static_cast<std::int32_t>(oldest / m.block), m.mass,
                           TopMass::reach, work + std::int64_t{worker} * key_blocks, kept + at);
  });

  std::size_t sum = 0;
  for (std::int32_t i = 0; i < lists; ++i) sum += static_cast<std::size_t>(count[i]);
  map.cols.reserve(sum);
  map.row_ptr.reserve(static_cast<std::size_t>(lists + g.heads));
  for (std::int32_t i = 0; i < lists; ++i) {
    if (i % row_blocks == 0) map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    const std::int32_t* list = kept + std::int64_t{i} * key_blocks;
    map.cols.insert(map.cols.end(), list, list + count[i]);
    map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
  }
  return map;
}

}  // namespace lacuna::block
