// SPDX-License-Identifier: Apache-2.0
// What a method keeps, over the keys of one segment (pattern/visibility.h numbers them by position).
// A pattern never repeats what the model forbids: attended = visible AND kept.
//
// keeps(h, i, j) is the ground truth: query head h, row i of the segment, key j. Everything else a
// pattern offers is a faster way to say the same, and pattern/laws.h tests that it does.
#pragma once

#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "lacuna/result.h"

namespace lacuna {

// The rows and keys a pattern speaks of. Row i's own key is first_key + i.
struct Grid {
  std::int32_t heads = 1;  // query heads
  std::int32_t n_rows = 0;
  std::int64_t n_keys = 0;
  std::int64_t first_key = 0;
};

enum class Tile : std::uint8_t { skip, partial, full };

// Keeps everything the model allows.
struct Dense {
  bool keeps(const Grid&, std::int32_t, std::int32_t, std::int64_t) const { return true; }
};

// Sinks and a window in closed form, with rows that see everything: the A-shape and the triangle.
// Row i keeps key j if j < sink, or own(i) - j < window, or own(i) >= dense_from.
struct Window {
  std::int64_t sink = 0;
  std::int64_t window = 0;
  std::int64_t dense_from = -1;  // key number from which rows are dense; < 0: none
  bool dense_row(std::int64_t own) const { return dense_from >= 0 && own >= dense_from; }
  bool keeps(const Grid& g, std::int32_t, std::int32_t i, std::int64_t j) const {
    const std::int64_t own = g.first_key + i;
    return j < sink || own - j < window || dense_row(own);
  }
};

// Block CSR: for every query head (or one list for all) and every block of block_q rows, the kept
// blocks of block_k keys, ascending. Row blocks count from the segment's first row, key blocks from
// key 0. Marks (full/partial) are found while lowering, from what the model allows.
struct BlockMap {
  std::int32_t heads = 1;  // 1 = one list shared by all heads
  std::int32_t block_q = 128, block_k = 128;
  std::int32_t n_rows = 0;
  std::int64_t n_keys = 0;
  std::vector<std::int32_t> row_ptr;  // [heads][q_blocks() + 1], offsets into cols
  std::vector<std::int32_t> cols;

  std::int32_t q_blocks() const { return (n_rows + block_q - 1) / block_q; }
  std::int64_t k_blocks() const { return (n_keys + block_k - 1) / block_k; }
  std::span<const std::int32_t> row(std::int32_t head, std::int32_t q_block) const {
    const std::size_t at = static_cast<std::size_t>(heads == 1 ? 0 : head) * (q_blocks() + 1) + q_block;
    return {cols.data() + row_ptr[at], cols.data() + row_ptr[at + 1]};
  }
  bool keeps(const Grid&, std::int32_t h, std::int32_t i, std::int64_t j) const;
  // Sizes, monotone row pointers, ascending columns in range: everything a kernel would trust.
  Status check() const;
};

using Pattern = std::variant<Dense, Window, BlockMap>;

}  // namespace lacuna
