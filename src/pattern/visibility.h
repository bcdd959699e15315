// SPDX-License-Identifier: Apache-2.0
// Visibility: what the model allows in one attention call, before any method leaves something out.
// Made once from the host's mask, shared by all layers that use that mask.
//
// Besides the bits themselves it finds the SEGMENTS: runs of query rows that belong to one sequence.
// One call of a server holds rows of several sequences, and the cells of a sequence need be neither
// side by side nor in order. Inside a segment, keys are numbered 0, 1, 2 ... in order of position:
// methods see only these numbers, never cells.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "lacuna/mask.h"
#include "lacuna/parallel.h"
#include "pattern/tile_runs.h"

namespace lacuna {

struct Segment {
  std::int32_t row_begin = 0, row_end = 0;
  std::int64_t n_keys = 0;
  std::int64_t first_cell = 0;              // if contiguous(): key j lies in cell first_cell + j
  std::vector<std::int32_t> cell_of_key;    // else: [n_keys]
  std::vector<std::int32_t> key_of_cell;    // else: [n_cells], -1 = not a key of this sequence
  std::vector<std::int32_t> key_of_row;     // [rows()] number of the row's own key: the last it sees
  std::int32_t rows() const { return row_end - row_begin; }
  bool contiguous() const { return cell_of_key.empty(); }
  std::int64_t cell(std::int64_t key) const {
    return contiguous() ? first_cell + key : cell_of_key[static_cast<std::size_t>(key)];
  }
  std::int64_t key(std::int64_t cell) const {  // -1: not a key of this segment
    if (!contiguous()) return key_of_cell[static_cast<std::size_t>(cell)];
    return cell >= first_cell && cell < first_cell + n_keys ? cell - first_cell : -1;
  }
};

// What the rows of each block of rows have in common: the AND and the OR of their words, and their
// visible pairs. Lowering reads these instead of every row's words. [n_blocks][n_tiles]
struct RowBlocks {
  std::int32_t row_begin = 0, row_end = 0, block_q = 0;
  std::vector<std::uint32_t> all, any;
  std::vector<std::int32_t> pairs;
};

class Visibility {
 public:
  static Visibility from_mask(const Mask& mask, std::int32_t n_rows, std::int64_t n_cells);
  // Row i sees cells [max(0, i + offset - window + 1), i + offset], offset = n_cells - n_rows;
  // window <= 0: no window. Rows before cell 0 see nothing.
  static Visibility causal(std::int32_t n_rows, std::int64_t n_cells, std::int64_t window = 0);

  std::int32_t n_rows() const { return n_rows_; }
  std::int64_t n_cells() const { return n_cells_; }
  std::int64_t n_tiles() const { return n_tiles_; }
  // Visibility of tile t's 32 cells for the row: bit b = cell 32 t + b.
  const std::uint32_t* words(std::int32_t row) const { return words_.data() + row * n_tiles_; }
  bool sees(std::int32_t row, std::int64_t cell) const {
    return words(row)[cell / kTileKeys] >> (cell % kTileKeys) & 1u;
  }
  bool additive() const { return additive_; }  // the mask also holds finite nonzero values
  std::int64_t visible_keys(std::int32_t row) const { return visible_[row]; }
  const std::vector<Segment>& segments() const { return segments_; }
  // Rows [row_begin, row_end) in blocks of block_q. Made at the first call with these figures and kept
  // for the layers and heads that follow; not to be called from two threads at once.
  const RowBlocks& row_blocks(std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q) const;

 private:
  void find_segments(const Mask& mask);
  bool same_sequence(std::int32_t row, const Mask& mask) const;  // rows `row` and `row` + 1

  std::int32_t n_rows_ = 0;
  std::int64_t n_cells_ = 0, n_tiles_ = 0;
  bool additive_ = false;
  std::vector<std::uint32_t> words_;
  std::vector<std::int64_t> visible_;
  std::vector<Segment> segments_;
  mutable std::deque<RowBlocks> row_blocks_;  // a deque: references stay valid as it grows
};

// How many bits are set. std::popcount is a library call on a machine that promises no popcnt.
inline std::int32_t count_bits(std::uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  return static_cast<std::int32_t>((((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u) >> 24);
}

// Bits of the cells [from, to) in the tile that begins at cell `base`.
inline std::uint32_t bits_between(std::int64_t base, std::int64_t from, std::int64_t to) {
  const std::int64_t lo = from > base ? from - base : 0, hi = to - base < kTileKeys ? to - base : kTileKeys;
  if (lo >= hi) return 0;
  return (0xffffffffu >> (kTileKeys - (hi - lo))) << lo;
}

}  // namespace lacuna
