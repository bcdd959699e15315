// SPDX-License-Identifier: Apache-2.0
#include "pattern/visibility.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace lacuna {
namespace {

constexpr std::uint16_t kMinusInfinity = 0xfc00;  // as f16 bits
constexpr std::uint16_t kMinusZero = 0x8000;

constexpr std::uint64_t kFourHidden = 0xfc00fc00fc00fc00ull;

// One tile's word from 32 mask values. Nearly all tiles are wholly visible or wholly hidden: eight
// 64-bit loads tell. Nonzero finite values are ORed into `bias`.
std::uint32_t word_of(const std::uint16_t* x, std::uint16_t& bias) {
  std::uint64_t part[8], ones = 0, other = 0;
  std::memcpy(part, x, sizeof(part));
  for (std::uint64_t p : part) {
    ones |= p;
    other |= p ^ kFourHidden;
  }
  if (!ones) return 0xffffffffu;
  if (!other) return 0;
  std::uint32_t word = 0;
  std::uint16_t seen = 0;
  for (int b = 0; b < kTileKeys; ++b) {
    const bool visible = x[b] != kMinusInfinity;
    word |= static_cast<std::uint32_t>(visible) << b;
    seen = static_cast<std::uint16_t>(seen | (visible && x[b] != kMinusZero ? x[b] : 0));
  }
  bias = static_cast<std::uint16_t>(bias | seen);
  return word;
}

}  // namespace

Visibility Visibility::from_mask(const Mask& mask, std::int32_t n_rows, std::int64_t n_cells) {
  if (!mask.data) return causal(n_rows, n_cells);
  Visibility v;
  v.n_rows_ = n_rows;
  v.n_cells_ = n_cells;
  v.n_tiles_ = (n_cells + kTileKeys - 1) / kTileKeys;
  v.words_.resize(static_cast<std::size_t>(n_rows * v.n_tiles_));
  v.visible_.resize(static_cast<std::size_t>(n_rows));
  std::uint16_t bias = 0, last[kTileKeys];
  const std::int64_t whole = n_cells / kTileKeys;
  for (std::int32_t i = 0; i < n_rows; ++i) {
    const std::uint16_t* row = mask.data + i * mask.row_stride;
    std::uint32_t* words = v.words_.data() + i * v.n_tiles_;
    for (std::int64_t t = 0; t < whole; ++t) words[t] = word_of(row + t * kTileKeys, bias);
    if (whole < v.n_tiles_) {  // cells beyond the last one are hidden
      std::fill(last, last + kTileKeys, kMinusInfinity);
      std::copy(row + whole * kTileKeys, row + n_cells, last);
      words[whole] = word_of(last, bias);
    }
    std::int64_t count = 0;
    for (std::int64_t t = 0; t < v.n_tiles_; ++t) count += count_bits(words[t]);
    v.visible_[static_cast<std::size_t>(i)] = count;
  }
  v.additive_ = bias != 0;
  v.find_segments(mask);
  return v;
}

Visibility Visibility::causal(std::int32_t n_rows, std::int64_t n_cells, std::int64_t window) {
  Visibility v;
  v.n_rows_ = n_rows;
  v.n_cells_ = n_cells;
  v.n_tiles_ = (n_cells + kTileKeys - 1) / kTileKeys;
  v.words_.resize(static_cast<std::size_t>(n_rows * v.n_tiles_));
  v.visible_.resize(static_cast<std::size_t>(n_rows));
  for (std::int32_t i = 0; i < n_rows; ++i) {
    const std::int64_t end = i + n_cells - n_rows + 1;
    const std::int64_t begin = window > 0 ? std::max<std::int64_t>(0, end - window) : 0;
    for (std::int64_t t = 0; t < v.n_tiles_; ++t)
      v.words_[static_cast<std::size_t>(i * v.n_tiles_ + t)] = bits_between(t * kTileKeys, begin, end);
    v.visible_[static_cast<std::size_t>(i)] = std::max<std::int64_t>(0, end - begin);
  }
  v.find_segments({});
  return v;
}

const RowBlocks& Visibility::row_blocks(std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q) const {
  for (const RowBlocks& b : row_blocks_)
    if (b.row_begin == row_begin && b.row_end == row_end && b.block_q == block_q) return b;
  RowBlocks& b = row_blocks_.emplace_back();
  b.row_begin = row_begin;
  b.row_end = row_end;
  b.block_q = block_q;
  const std::int64_t n_blocks = (row_end - row_begin + block_q - 1) / block_q;
  b.all.assign(static_cast<std::size_t>(n_blocks * n_tiles_), 0xffffffffu);
  b.any.assign(b.all.size(), 0);
  b.pairs.assign(b.all.size(), 0);
  for (std::int32_t i = row_begin; i < row_end; ++i) {
    const std::int64_t at = (i - row_begin) / block_q * n_tiles_;
    const std::uint32_t* w = words(i);
    std::uint32_t *all = b.all.data() + at, *any = b.any.data() + at;
    std::int32_t* pairs = b.pairs.data() + at;
    for (std::int64_t t = 0; t < n_tiles_; ++t) {
      all[t] &= w[t];
      any[t] |= w[t];
      pairs[t] += count_bits(w[t]);
    }
  }
  return b;
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
    if (a[t] == b[t]) continue;
    gone += count_bits(a[t] & ~b[t]);
    come += count_bits(b[t] & ~a[t]);
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
    for (std::int32_t i = begin; i < end; ++i) {
      const std::uint32_t* w = words(i);
      for (std::int64_t t = 0; t < n_tiles_; ++t) seen[static_cast<std::size_t>(t)] |= w[t];
    }
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
      if (own < 0)  // the last key it sees: near the end, as a rule
        for (own = s.n_keys - 1; own >= 0 && !sees(i, s.cell(own));) --own;
      s.key_of_row.push_back(static_cast<std::int32_t>(own));
    }
    segments_.push_back(std::move(s));
  }
}

}  // namespace lacuna
