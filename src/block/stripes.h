// SPDX-License-Identifier: Apache-2.0
// From lines to ranges (MInference, arXiv:2407.02490): a row block of Bq rows that ends before key e
// keeps, for each slash distance s, the Bq keys [e - s - Bq, e - s) and for each column its key.
// Ranges that overlap or touch become one; a column inside a range is not named twice.
//
// Lines come and are kept as bits: from row block to row block, the keys of the slash lines are the same
// bits moved by Bq, so that a block costs a few operations per 64 keys, however many lines there are.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "pattern/pattern.h"

namespace lacuna::block {

class Stripes {
 public:
  // Bit b of word w: column, or distance, 32 w + b; n_keys of each.
  Stripes(const Grid& g, std::int32_t block_q, std::span<const std::uint32_t> columns, std::span<const std::uint32_t> distances)
      : grid_(g),
        block_q_(block_q),
        columns_(static_cast<std::size_t>(g.n_keys / 64 + 1)),
        slashes_(static_cast<std::size_t>((2 * g.n_keys + block_q) / 64 + 3)) {
    for (std::size_t w = 0; w < columns.size(); ++w) columns_[w / 2] |= std::uint64_t{columns[w]} << (w % 2 * 32);
    std::int64_t from = 0, to = 0;  // ranges of neighbouring distances, near to far, as one
    for (std::size_t w = 0; w < distances.size(); ++w)
      for (std::uint32_t bits = distances[w]; bits; bits &= bits - 1) {
        const std::int64_t at = g.first_key + g.n_keys - static_cast<std::int64_t>(w * 32) - std::countr_zero(bits);
        if (at + block_q < from || to == 0) {
          mark(from, to);
          to = at + block_q;
        }
        from = at;
      }
    mark(from, to);
  }

  // Appends the ranges of row block u; keys after the block's last row are left out.
  void append(std::int32_t u, std::vector<Range>& out) const {
    const std::int64_t limit =
        std::min({grid_.first_key + std::int64_t{u + 1} * block_q_, grid_.first_key + grid_.n_rows, grid_.n_keys});
    const std::size_t list = out.size();
    for (std::int64_t key = 0; key < limit; key += 64) {
      const auto at = static_cast<std::size_t>(key + grid_.n_keys - std::int64_t{u} * block_q_);
      std::uint64_t bits = slashes_[at / 64] >> (at % 64);
      if (at % 64) bits |= slashes_[at / 64 + 1] << (64 - at % 64);
      bits |= columns_[static_cast<std::size_t>(key / 64)];
      if (limit - key < 64) bits &= (std::uint64_t{1} << (limit - key)) - 1;
      for (int begin = 0; bits; bits = begin < 64 ? bits >> begin << begin : 0) {
        const int first = std::countr_zero(bits);
        begin = first + std::countr_one(bits >> first);
        const auto from = static_cast<std::int32_t>(key + first), to = static_cast<std::int32_t>(key + begin);
        if (out.size() > list && out.back().end == from) out.back().end = to;
        else out.push_back({from, to});
      }
    }
  }

 private:
  // Slash bit x stands for key x - n_keys of row block 0.
  void mark(std::int64_t from, std::int64_t to) {
    for (std::int64_t x = from; x < to;) {
      const std::int64_t end = std::min(to, (x / 64 + 1) * 64);
      slashes_[static_cast<std::size_t>(x / 64)] |= (end - x == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (end - x)) - 1) << (x % 64);
      x = end;
    }
  }

  Grid grid_;
  std::int32_t block_q_;
  std::vector<std::uint64_t> columns_, slashes_;
};

// A list of columns or distances below n as bits.
inline std::vector<std::uint32_t> line_bits(std::span<const std::int32_t> lines, std::int64_t n) {
  std::vector<std::uint32_t> bits(static_cast<std::size_t>((n + 31) / 32));
  for (const std::int32_t i : lines) bits[static_cast<std::size_t>(i / 32)] |= 1u << (i % 32);
  return bits;
}

}  // namespace lacuna::block
