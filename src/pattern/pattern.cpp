// SPDX-License-Identifier: Apache-2.0
#include "pattern/pattern.h"

#include <algorithm>

#include <fmt/format.h>

#include "pattern/tile_runs.h"

namespace lacuna {

namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 30;  // rounds up to a block within int32

// What every list pattern has: lists, row blocks, and offsets that rise within a list.
Status check_rows(const char* what, std::int32_t lists, std::int32_t block_q, std::int64_t n_rows, std::int64_t n,
                  const std::vector<std::int32_t>& row_ptr, std::size_t entries) {
  if (block_q < 1 || block_q > kMaxBlockQ)
    return bad_argument(fmt::format("{}: blocks of {} rows: need 1..{}", what, block_q, kMaxBlockQ));
  if (lists < 1 || n_rows < 0 || n_rows > kLargest || n < 0 || n > kLargest)
    return bad_argument(fmt::format("{}: {} lists, {} rows, {} keys: need at least 1, 0, 0, and {} at most", what, lists,
                                    n_rows, n, kLargest));
  const std::size_t each = static_cast<std::size_t>((n_rows + block_q - 1) / block_q) + 1,
                    all = static_cast<std::size_t>(lists) * each;
  if (row_ptr.size() != all)
    return bad_argument(fmt::format("{}: row_ptr has {} entries, need {} (lists x (row blocks + 1))", what, row_ptr.size(), all));
  for (std::size_t i = 0; i < all; ++i) {
    const std::int64_t at = row_ptr[i];
    if (at < 0 || at > static_cast<std::int64_t>(entries))
      return bad_argument(fmt::format("{}: row_ptr[{}] is {}, need 0..{}", what, i, at, entries));
    if (i % each != 0 && at < row_ptr[i - 1])
      return bad_argument(fmt::format("{}: row_ptr[{}] is {}, less than the entry before it ({})", what, i, at, row_ptr[i - 1]));
  }
  return {};
}

}  // namespace

Status Window::check() const {
  constexpr std::int64_t kMost = std::int64_t{1} << 40;  // far from where sums with key numbers overflow
  for (const auto& [name, value] : {std::pair{"sink", sink}, {"window", window}})
    if (value < 0 || value > kMost)
      return bad_argument(fmt::format("window: {} of {} keys: need 0..{}", name, value, kMost));
  return {};
}

bool BlockMap::keeps(const Grid& g, std::int32_t h, std::int32_t i, std::int64_t j) const {
  const auto list = row(list_of_head(heads, g.heads, h), i / block_q);
  return std::binary_search(list.begin(), list.end(), static_cast<std::int32_t>(j / block_k));
}

Status BlockMap::check() const {
  if (block_k < 1 || block_k > kLargest)
    return bad_argument(fmt::format("block map: blocks of {} keys: need 1..{}", block_k, kLargest));
  LACUNA_CHECK(check_rows("block map", heads, block_q, n_rows, n_keys, row_ptr, cols.size()));
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t b = 0; b < q_blocks(); ++b) {
      std::int64_t last = -1;
      for (std::int32_t c : row(h, b)) {
        if (c < 0 || c >= k_blocks())
          return bad_argument(fmt::format("block map: list {} row block {}: key block {}, need 0..{}", h, b, c,
                                          k_blocks() - 1));
        if (c <= last)
          return bad_argument(fmt::format("block map: list {} row block {}: key block {} after {}: lists must ascend",
                                          h, b, c, last));
        last = c;
      }
    }
  return {};
}

bool Ranges::keeps(const Grid& g, std::int32_t h, std::int32_t i, std::int64_t j) const {
  const auto list = row(list_of_head(heads, g.heads, h), i / block_q);
  const auto after = std::upper_bound(list.begin(), list.end(), j, [](std::int64_t x, const Range& r) { return x < r.begin; });
  return after != list.begin() && j < std::prev(after)->end;
}

Status Ranges::check() const {
  LACUNA_CHECK(check_rows("ranges", heads, block_q, n_rows, n, row_ptr, ranges.size()));
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t b = 0; b < q_blocks(); ++b) {
      std::int64_t last = -1;
      for (const Range& r : row(h, b)) {
        if (r.begin < 0 || r.end <= r.begin || r.end > n)
          return bad_argument(fmt::format("ranges: list {} row block {}: [{}, {}), need 0 <= begin < end <= {}", h, b,
                                          r.begin, r.end, n));
        if (r.begin <= last)
          return bad_argument(fmt::format("ranges: list {} row block {}: [{}, {}) does not lie behind {}: ranges must "
                                          "ascend and not touch", h, b, r.begin, r.end, last));
        last = r.end;
      }
    }
  return {};
}

Ranges join_ranges(const Grid& g, std::int32_t block_q, std::int32_t lists, std::span<const std::vector<Range>> of_block) {
  Ranges out;
  out.heads = lists;
  out.block_q = block_q;
  out.n_rows = g.n_rows;
  out.n = g.n_keys;
  std::size_t sum = 0;
  for (const auto& list : of_block) sum += list.size();
  out.ranges.reserve(sum);
  const auto blocks = static_cast<std::size_t>(out.q_blocks());
  for (std::size_t i = 0; i < of_block.size(); ++i) {
    if (i % blocks == 0) out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
    out.ranges.insert(out.ranges.end(), of_block[i].begin(), of_block[i].end());
    out.row_ptr.push_back(static_cast<std::int32_t>(out.ranges.size()));
  }
  return out;
}

}  // namespace lacuna
