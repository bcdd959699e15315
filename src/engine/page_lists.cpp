// SPDX-License-Identifier: Apache-2.0
// Lists of pages from plans, for calls of few rows: pages as large as the bounds of all ranges allow, down to one key.
#include <algorithm>

#include "engine/kept_rows.h"

namespace lacuna {
namespace {

constexpr std::int32_t kMostRows = 16, kMostCells = 256;  // that the kernel takes

}  // namespace

void page_lists(const std::vector<KeptRows>& sequences, const Allowed& allowed, BlockLists& to) {
  if (allowed.rows < 1 || allowed.rows > kMostRows) return;
  std::vector<std::vector<Range>> kept;
  std::int64_t bounds = kMostCells;  // its lowest bit divides all of them
  for (const KeptRows& rows : sequences)
    for (std::int32_t list = 0; list < to.lists; ++list) {
      const std::int32_t own = list_of_head(rows.lists(), to.lists, list);
      if (rows.next(own, 0, allowed.rows) < allowed.rows) return;
      rows.ranges(own, 0, kept.emplace_back());
      for (const Range& r : kept.back()) bounds |= r.begin | (r.end == allowed.keys ? 0 : r.end);
    }
  to.cells = static_cast<std::int32_t>(bounds & -bounds);
  std::vector<std::vector<std::int32_t>> pages(kept.size());
  for (std::size_t i = 0; i < kept.size(); ++i) {
    for (const Range& r : kept[i])
      for (std::int32_t key = r.begin; key < r.end; key += to.cells) pages[i].push_back(key / to.cells);
    to.counts.push_back(static_cast<std::int32_t>(pages[i].size()));
    to.most = std::max(to.most, to.counts.back());
  }
  to.pages.assign(kept.size() * static_cast<std::size_t>(to.most), -1);
  for (std::size_t i = 0; i < pages.size(); ++i)
    std::copy(pages[i].begin(), pages[i].end(), to.pages.begin() + static_cast<std::ptrdiff_t>(i) * to.most);
}

}  // namespace lacuna
