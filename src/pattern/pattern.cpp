// SPDX-License-Identifier: Apache-2.0
#include "pattern/pattern.h"

#include <algorithm>

#include <fmt/format.h>

#include "pattern/tile_runs.h"

namespace lacuna {

bool BlockMap::keeps(const Grid&, std::int32_t h, std::int32_t i, std::int64_t j) const {
  const auto list = row(h, i / block_q);
  return std::binary_search(list.begin(), list.end(), static_cast<std::int32_t>(j / block_k));
}

Status BlockMap::check() const {
  constexpr std::int64_t kLargest = std::int64_t{1} << 30;  // rounds up to a block within int32
  if (block_q < 1 || block_q > kMaxBlockQ || block_k < 1 || block_k > kLargest)
    return bad_argument(fmt::format("block map: blocks of {} x {}: need 1..{} rows and 1..{} keys", block_q, block_k,
                                    kMaxBlockQ, kLargest));
  if (heads < 1 || n_rows < 0 || n_rows > kLargest || n_keys < 0 || n_keys > kLargest)
    return bad_argument(fmt::format("block map: {} heads, {} rows, {} keys: need at least 1, 0, 0, and {} at most",
                                    heads, n_rows, n_keys, kLargest));
  const std::size_t lists = static_cast<std::size_t>(heads) * (static_cast<std::size_t>(q_blocks()) + 1);
  if (row_ptr.size() != lists)
    return bad_argument(fmt::format("block map: row_ptr has {} entries, need {} (heads x (row blocks + 1))",
                                    row_ptr.size(), lists));
  for (std::size_t i = 0; i < lists; ++i) {
    const std::int64_t at = row_ptr[i];
    if (at < 0 || at > static_cast<std::int64_t>(cols.size()))
      return bad_argument(fmt::format("block map: row_ptr[{}] is {}, need 0..{}", i, at, cols.size()));
    if (i % (static_cast<std::size_t>(q_blocks()) + 1) != 0 && at < row_ptr[i - 1])
      return bad_argument(fmt::format("block map: row_ptr[{}] is {}, less than the entry before it ({})", i, at,
                                      row_ptr[i - 1]));
  }
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t b = 0; b < q_blocks(); ++b) {
      std::int64_t last = -1;
      for (std::int32_t c : row(h, b)) {
        if (c < 0 || c >= k_blocks())
          return bad_argument(fmt::format("block map: head {} row block {}: key block {}, need 0..{}", h, b, c,
                                          k_blocks() - 1));
        if (c <= last)
          return bad_argument(fmt::format("block map: head {} row block {}: key block {} after {}: lists must ascend",
                                          h, b, c, last));
        last = c;
      }
    }
  return {};
}

}  // namespace lacuna
