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

// Key blocks that row block u may see: those that begin at or before its last own key.
inline std::int64_t causal_blocks(const Grid& g, std::int32_t block_q, std::int32_t block_k, std::int32_t u) {
  const std::int64_t rows = std::int64_t{u + 1} * block_q, last = g.first_key + (rows < g.n_rows ? rows : g.n_rows) - 1;
  return last / block_k + 1;
}

// The first key block that holds an own key of row block u.
inline std::int64_t first_own_block(const Grid& g, std::int32_t block_q, std::int32_t block_k, std::int32_t u) {
  return (g.first_key + std::int64_t{u} * block_q) / block_k;
}

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
  Status check() const;  // sizes
};

// Lists of a pattern: one for all query heads, one per KV head, or one per query head. The list that
// query head h reads.
constexpr std::int32_t list_of_head(std::int32_t lists, std::int32_t q_heads, std::int32_t h) {
  return static_cast<std::int32_t>(std::int64_t{h} * lists / q_heads);
}

// Block CSR: for every list and every block of block_q rows, the kept blocks of block_k keys,
// ascending. Row blocks count from the segment's first row, key blocks from key 0. Marks
// (full/partial) are found while lowering, from what the model allows.
struct BlockMap {
  std::int32_t heads = 1;  // lists: 1, one per KV head, or one per query head
  std::int32_t block_q = 128, block_k = 128;
  std::int32_t n_rows = 0;
  std::int64_t n_keys = 0;
  std::vector<std::int32_t> row_ptr;  // [heads][q_blocks() + 1], offsets into cols
  std::vector<std::int32_t> cols;

  std::int32_t q_blocks() const { return (n_rows + block_q - 1) / block_q; }
  std::int64_t k_blocks() const { return (n_keys + block_k - 1) / block_k; }
  std::span<const std::int32_t> row(std::int32_t list, std::int32_t q_block) const {
    const std::size_t at = static_cast<std::size_t>(list) * (q_blocks() + 1) + q_block;
    return {cols.data() + row_ptr[at], cols.data() + row_ptr[at + 1]};
  }
  bool keeps(const Grid& g, std::int32_t h, std::int32_t i, std::int64_t j) const;
  // Sizes, monotone row pointers, ascending columns in range: everything a kernel would trust.
  Status check() const;
};

struct Range {
  std::int32_t begin = 0, end = 0;  // [begin, end), begin < end
};

// Ranges: for every list and every block of block_q rows, ascending ranges that do not touch. Stripes
// (vertical lines are ranges of one key, slash lines of a block's width), token lists and page lists
// are all of this form; lowering decides, tile by tile, between a whole tile and a gathered cell.
struct Ranges {
  // What the numbers count: a segment's keys, or cells of the cache as they lie. Methods that choose by
  // score alone need no order of keys and name cells; a page of cells may hold other sequences' cells,
  // which stay hidden.
  enum class Of : std::uint8_t { keys, cells };
  Of of = Of::keys;
  std::int32_t heads = 1;  // lists: 1, one per KV head, or one per query head
  std::int32_t block_q = 64;
  std::int32_t n_rows = 0;
  std::int64_t n = 0;      // keys of the segment, or cells of the cache
  std::vector<std::int32_t> row_ptr;  // [heads][q_blocks() + 1], offsets into ranges
  std::vector<Range> ranges;

  std::int32_t q_blocks() const { return (n_rows + block_q - 1) / block_q; }
  std::span<const Range> row(std::int32_t list, std::int32_t q_block) const {
    const std::size_t at = static_cast<std::size_t>(list) * (q_blocks() + 1) + q_block;
    return {ranges.data() + row_ptr[at], ranges.data() + row_ptr[at + 1]};
  }
  // `j` is a key or a cell, by `of`.
  bool keeps(const Grid& g, std::int32_t h, std::int32_t i, std::int64_t j) const;
  Status check() const;
};

// Ranges of keys from the lists of (list, row block), one after the other.
Ranges join_ranges(const Grid& g, std::int32_t block_q, std::int32_t lists, std::span<const std::vector<Range>> of_block);

using Pattern = std::variant<Dense, Window, BlockMap, Ranges>;

// The pattern's numbers are cells of the cache, not keys.
inline bool names_cells(const Pattern& p) {
  const auto* r = std::get_if<Ranges>(&p);
  return r && r->of == Ranges::Of::cells;
}

}  // namespace lacuna
