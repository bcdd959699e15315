// SPDX-License-Identifier: Apache-2.0
// A cache with rows of several sequences, as a host sees it, drawn from bytes; and what a test knows of it
// without asking the engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "base/half.h"
#include "lacuna/mask.h"
#include "support/draw_plan.h"

namespace lacuna::test {

struct DrawnScene {
  static constexpr std::uint16_t kHiddenCell = 0xfc00;
  std::int32_t n_rows = 0, n_cells = 0, stride = 0;
  std::vector<std::uint16_t> data;
  std::vector<std::int32_t> row_cell, cell_pos;
  bool announced = true;  // the host says where rows and cells stand
  bool biased = false;    // finite values in the mask: ALiBi

  Mask mask() const {
    Mask m;
    m.data = data.data();
    m.row_stride = stride;
    if (announced) m.row_cell = row_cell.data(), m.cell_pos = cell_pos.data();
    return m;
  }
  bool sees(std::int32_t row, std::int64_t cell) const {
    return data[static_cast<std::size_t>(row) * static_cast<std::size_t>(stride) + static_cast<std::size_t>(cell)] !=
           kHiddenCell;
  }

  // Keys of rows [begin, end) by number, as cells: what some row sees, in order of position where it is known.
  std::vector<std::int32_t> keys(std::int32_t begin, std::int32_t end) const {
    std::vector<std::int32_t> cells;
    for (std::int32_t c = 0; c < n_cells; ++c) {
      bool any = false;
      for (std::int32_t i = begin; i < end; ++i) any = any || sees(i, c);
      if (any) cells.push_back(c);
    }
    const auto position = [&](std::int32_t c) { return cell_pos[static_cast<std::size_t>(c)]; };
    if (announced && std::all_of(cells.begin(), cells.end(), [&](std::int32_t c) { return position(c) >= 0; }))
      std::stable_sort(cells.begin(), cells.end(),
                       [&](std::int32_t a, std::int32_t b) { return position(a) < position(b); });
    return cells;
  }
  // The number of a row's own key among these: the cell the host names, else the last that it sees; -1: none.
  std::int64_t own(std::int32_t row, const std::vector<std::int32_t>& keys) const {
    for (std::size_t j = 0; announced && j < keys.size(); ++j)
      if (keys[j] == row_cell[static_cast<std::size_t>(row)]) return static_cast<std::int64_t>(j);
    for (auto j = static_cast<std::int64_t>(keys.size()) - 1; j >= 0; --j)
      if (sees(row, keys[static_cast<std::size_t>(j)])) return j;
    return -1;
  }
};

struct SceneDraw {
  std::int32_t sequences = 3, longest = 100, most_rows = 40;  // of a sequence
  bool blind = true;                                          // rows that see nothing may come first
};

inline DrawnScene draw_scene(Draw& d, const SceneDraw& o) {
  DrawnScene s;
  const std::int32_t sequences = 1 + d.below(o.sequences), kind = d.byte();
  const bool scattered = kind & 1, decode = (kind & 6) == 0;
  s.announced = (kind & 24) != 0;
  s.biased = (kind & 96) == 0;
  const std::int32_t window = kind & 128 ? 1 + d.below(60) : 0, idle = d.below(40);  // cells of nobody
  const std::int32_t blind = o.blind && !decode && d.below(8) == 0 ? 1 + d.below(5) : 0;
  std::vector<std::int32_t> length, fresh;
  for (std::int32_t q = 0; q < sequences; ++q) {
    length.push_back(1 + d.below(o.longest));
    fresh.push_back(decode ? 1 : 1 + d.below(std::min(length.back(), o.most_rows)));
  }
  s.n_cells = std::accumulate(length.begin(), length.end(), idle);
  s.n_rows = std::accumulate(fresh.begin(), fresh.end(), blind);
  s.stride = s.n_cells + d.below(4);
  std::vector<std::int32_t> cells(static_cast<std::size_t>(s.n_cells));  // the idle ones first: left padding
  std::iota(cells.begin(), cells.end(), 0);
  if (scattered)
    for (std::size_t i = cells.size(); i > 1; --i)
      std::swap(cells[i - 1], cells[static_cast<std::size_t>(d.below(static_cast<std::int64_t>(i)))]);
  s.data.assign(static_cast<std::size_t>(s.n_rows) * static_cast<std::size_t>(s.stride) + 1, DrawnScene::kHiddenCell);
  s.row_cell.assign(static_cast<std::size_t>(blind), -1);
  s.cell_pos.assign(cells.size(), -1);
  std::int32_t row = blind;
  const std::int32_t* own = cells.data() + idle;
  for (std::int32_t q = 0; q < sequences; own += length[static_cast<std::size_t>(q++)]) {
    const std::int32_t n = length[static_cast<std::size_t>(q)];
    for (std::int32_t j = 0; j < n; ++j) s.cell_pos[static_cast<std::size_t>(own[j])] = j;
    for (std::int32_t p = n - fresh[static_cast<std::size_t>(q)]; p < n; ++p, ++row) {
      s.row_cell.push_back(own[p]);
      for (std::int32_t j = window > 0 ? std::max(0, p - window + 1) : 0; j <= p; ++j)
        s.data[static_cast<std::size_t>(row * s.stride + own[j])] =
            s.biased ? float_to_half(-0.25f * static_cast<float>(p - j)) : std::uint16_t{0};
    }
  }
  return s;
}

}  // namespace lacuna::test
