// SPDX-License-Identifier: Apache-2.0
// The cells of one decoded row that a plan keeps for a query head, as words of bits over the cache's
// tiles: what a second selection may choose from.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "op/attention_view.h"
#include "pattern/pattern.h"

namespace lacuna::block {

// words [tiles_of(x.cells.n)]; pattern: null = everything. Only visible cells.
inline void candidate_words(const AttentionView& x, const Pattern* pattern, std::int32_t head, std::span<std::uint32_t> words) {
  if (!pattern || std::holds_alternative<Dense>(*pattern)) {
    std::copy(x.cells.visible, x.cells.visible + words.size(), words.begin());
    return;
  }
  std::fill(words.begin(), words.end(), 0u);
  if (const auto* r = std::get_if<Ranges>(pattern); r && r->of == Ranges::Of::cells) {
    for (const Range& range : r->row(list_of_head(r->heads, x.grid.heads, head), 0))
      for (std::int64_t t = range.begin / kTileKeys; t * kTileKeys < range.end; ++t)
        words[static_cast<std::size_t>(t)] |= bits_between(t * kTileKeys, range.begin, range.end);
  } else {
    for (std::int64_t j = 0; j < x.grid.n_keys; ++j)
      if (std::visit([&](const auto& p) { return p.keeps(x.grid, head, 0, j); }, *pattern)) {
        const std::int64_t cell = x.cells.segment->cell(j);
        words[static_cast<std::size_t>(cell / kTileKeys)] |= 1u << (cell % kTileKeys);
      }
  }
  for (std::size_t t = 0; t < words.size(); ++t) words[t] &= x.cells.visible[t];
}

// Appends the set cells as ranges, ascending.
inline void append_cells(std::span<const std::uint32_t> words, std::vector<Range>& out) {
  const std::size_t list = out.size();
  for (std::size_t t = 0; t < words.size(); ++t)
    for (std::uint64_t bits = words[t]; bits;) {
      const int from = std::countr_zero(bits), to = from + std::countr_one(bits >> from);
      const auto base = static_cast<std::int32_t>(t * kTileKeys);
      if (out.size() > list && out.back().end == base + from) out.back().end = base + to;
      else out.push_back({base + from, base + to});
      bits = bits >> to << to;
    }
}

}  // namespace lacuna::block
