// SPDX-License-Identifier: Apache-2.0
// From lines to ranges (MInference, arXiv:2407.02490): a row block of Bq rows that ends before key e
// keeps, for each slash distance s, the Bq keys [e - s - Bq, e - s) and for each column its key.
// Ranges that overlap or touch become one; a column inside a range is not named twice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "pattern/pattern.h"

namespace lacuna::block {

// Appends the ranges of row block u. Both lists ascend; keys after the block's last row are left out.
inline void append_stripes(const Grid& g, std::int32_t block_q, std::int32_t u, std::span<const std::int32_t> columns,
                           std::span<const std::int32_t> distances, std::vector<Range>& out) {
  const std::int64_t end = g.first_key + std::int64_t{u + 1} * block_q;
  const std::int64_t limit = std::min(end, std::min<std::int64_t>(g.first_key + g.n_rows, g.n_keys));
  const std::size_t list = out.size();
  const auto add = [&](std::int64_t from, std::int64_t to) {
    from = std::max<std::int64_t>(from, 0);
    to = std::min(to, limit);
    if (from >= to) return;
    if (out.size() > list && out.back().end >= from) out.back().end = std::max(out.back().end, static_cast<std::int32_t>(to));
    else out.push_back({static_cast<std::int32_t>(from), static_cast<std::int32_t>(to)});
  };
  auto column = columns.begin();
  for (auto s = distances.rbegin(); s != distances.rend(); ++s) {  // far to near: ranges begin ever later
    const std::int64_t from = end - *s - block_q;
    for (; column != columns.end() && *column <= from; ++column) add(*column, *column + 1);
    add(from, from + block_q);
  }
  for (; column != columns.end(); ++column) add(*column, *column + 1);
}

}  // namespace lacuna::block
