// SPDX-License-Identifier: Apache-2.0
#include "pattern/visibility.h"

#include <algorithm>
#include <bit>

namespace lacuna {
namespace {

constexpr std::uint16_t kMinusInfinity = 0xfc00;  // as f16 bits
constexpr std::uint16_t kMinusZero = 0x8000;

}  // namespace

Visibility Visibility::from_mask(const Mask& mask, std::int32_t n_rows, std::int64_t n_cells) {
  if (!mask.data) return causal(n_rows, n_cells);
  Visibility v;
  v.n_rows_ = n_rows;
  v.n_cells_ = n_cells;
  v.n_tiles_ = (n_cells + kTileKeys - 1) / kTileKeys;
  v.words_.assign(static_cast<std::size_t>(n_rows * v.n_tiles_), 0);
  v.visible_.assign(static_cast<std::size_t>(n_rows), 0);
  std::uint16_t any_bias = 0;
  for (std::int32_t i = 0; i < n_rows; ++i) {
    const std::uint16_t* row = mask.data + i * mask.row_stride;
    std::uint32_t* words = v.words_.data() + i * v.n_tiles_;
    std::int64_t count = 0;
    for (std::int64_t t = 0; t < v.n_tiles_; ++t) {
      const std::int64_t begin = t * kTileKeys, n = std::min<std::int64_t>(kTileKeys, n_cells - begin);
      std::uint32_t word = 0;
      for (int b = 0; b < n; ++b) {
        const std::uint16_t x = row[begin + b];
        const bool hidden = x == kMinusInfinity;
        word |= static_cast<std::uint32_t>(!hidden) << b;
        any_bias |= hidden || x == kMinusZero ? std::uint16_t{0} : x;
      }
      words[t] = word;
      count += std::popcount(word);
    }
    v.visible_[static_cast<std::size_t>(i)] = count;
  }
  v.additive_ = any_bias != 0;
  v.find_segments(mask);
  return v;
}

Visibility Visibility::causal(std::int32_t n_rows, std::int64_t n_cells, std::int64_t window) {
  Visibility v;
  v.n_rows_ = n_rows;
  v.n_cells_ = n_cells;
  v.n_tiles_ = (n_cells + kTileKeys - 1) / kTileKeys;
  v.words_.assign(static_cast<std::size_t>(n_rows * v.n_tiles_), 0);
  v.visible_.assign(static_cast<std::size_t>(n_rows), 0);
  for (std::int32_t i = 0; i < n_rows; ++i) {
    const std::int64_t end = i + n_cells - n_rows + 1;
    const std::int64_t begin = window > 0 ? std::max<std::int64_t>(0, end - window) : 0;
    for (std::int64_t c = begin; c < end; ++c)
      v.words_[static_cast<std::size_t>(i * v.n_tiles_ + c / kTileKeys)] |= 1u << (c % kTileKeys);
    v.visible_[static_cast<std::size_t>(i)] = std::max<std::int64_t>(0, end - begin);
  }
  v.find_segments({});
  return v;
}

// Two neighbouring rows are of one sequence if the later one sees the earlier one's own cell. Where
// the host does not say which cell that is, their visible sets must differ by at most one cell each
// way: the new token, and the one that leaves a sliding window. (Two short sequences with a common
// prefix can look like that; bits stay exact then, only the numbering of keys is shared.)
bool Visibility::same_sequence(std::int32_t row, const Mask& mask) const {
  if (mask.row_cell && mask.row_cell[row] >= 0 && mask.row_cell[row] < n_cells_)
    return sees(row + 1, mask.row_cell[row]);
  const std::uint32_t *a = words(row), *b = words(row + 1);
  int gone = 0, come = 0;
  for (std::int64_t t = 0; t < n_tiles_ && gone <= 1 && come <= 1; ++t) {
    gone += std::popcount(a[t] & ~b[t]);
    come += std::popcount(b[t] & ~a[t]);
  }
  return gone <= 1 && come <= 1;
}

void Visibility::find_segments(const Mask& mask) {
  std::vector<std::uint32_t> seen(static_cast<std::size_t>(n_tiles_));
  for (std::int32_t begin = 0, end; begin < n_rows_; begin = end) {
    for (end = begin + 1; end < n_rows_ && same_sequence(end - 1, mask);) ++end;
    Segment s;
    s.row_begin = begin;
    s.row_end = end;

    std::fill(seen.begin(), seen.end(), 0u);
    for (std::int32_t i = begin; i < end; ++i)
      for (std::int64_t t = 0; t < n_tiles_; ++t) seen[static_cast<std::size_t>(t)] |= words(i)[t];
    std::vector<std::int32_t> cells;
    bool positions_known = mask.cell_pos != nullptr;
    for (std::int64_t t = 0; t < n_tiles_; ++t)
      for (std::uint32_t w = seen[static_cast<std::size_t>(t)]; w; w &= w - 1) {
        cells.push_back(static_cast<std::int32_t>(t * kTileKeys + std::countr_zero(w)));
        positions_known = positions_known && mask.cell_pos[cells.back()] >= 0;
      }
    if (positions_known)
      std::stable_sort(cells.begin(), cells.end(), [&](std::int32_t a, std::int32_t b) {
        return mask.cell_pos[a] < mask.cell_pos[b];
      });
    s.n_keys = static_cast<std::int64_t>(cells.size());
    s.first_cell = cells.empty() ? 0 : cells.front();
    bool in_order = true;
    for (std::int64_t j = 0; j < s.n_keys; ++j)
      in_order = in_order && cells[static_cast<std::size_t>(j)] == s.first_cell + j;
    if (!in_order) {
      s.key_of_cell.assign(static_cast<std::size_t>(n_cells_), -1);
      for (std::size_t j = 0; j < cells.size(); ++j)
        s.key_of_cell[static_cast<std::size_t>(cells[j])] = static_cast<std::int32_t>(j);
      s.cell_of_key = std::move(cells);
    }

    for (std::int32_t i = begin; i < end; ++i) {
      std::int64_t own = mask.row_cell && mask.row_cell[i] >= 0 && mask.row_cell[i] < n_cells_
                             ? s.key(mask.row_cell[i])
                             : -1;
      if (own < 0)
        for (std::int64_t t = 0; t < n_tiles_; ++t)
          for (std::uint32_t w = words(i)[t]; w; w &= w - 1)
            own = std::max(own, s.key(t * kTileKeys + std::countr_zero(w)));
      s.key_of_row.push_back(static_cast<std::int32_t>(own));
    }
    segments_.push_back(std::move(s));
  }
}

}  // namespace lacuna
