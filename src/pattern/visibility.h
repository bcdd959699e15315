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

 private:
  void find_segments(const Mask& mask);
  bool same_sequence(std::int32_t row, const Mask& mask) const;  // rows `row` and `row` + 1

  std::int32_t n_rows_ = 0;
  std::int64_t n_cells_ = 0, n_tiles_ = 0;
  bool additive_ = false;
  std::vector<std::uint32_t> words_;
  std::vector<std::int64_t> visible_;
  std::vector<Segment> segments_;
};

}  // namespace lacuna
