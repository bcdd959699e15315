// SPDX-License-Identifier: Apache-2.0
// One builder for all patterns: for every tile of a row block, ask for each row which of the 32
// cells are kept (a word), AND it with what is allowed, and join tiles that are wholly visible.
// Patterns differ in the word alone; adding one means adding an overload of `kept`.
#include "engine/lower.h"

#include <algorithm>
#include <bit>

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr std::uint32_t kAll = 0xffffffffu;

// Bits of the cells [from, to) of the tile that begins at cell `base`.
std::uint32_t bits_between(std::int64_t base, std::int64_t from, std::int64_t to) {
  const std::int64_t lo = std::clamp<std::int64_t>(from - base, 0, 32), hi = std::clamp<std::int64_t>(to - base, 0, 32);
  if (lo >= hi) return 0;
  const std::uint32_t upto = hi == 32 ? kAll : (1u << hi) - 1u;
  return upto & ~((1u << lo) - 1u);
}

// Keys [from, to) as bits of a tile.
std::uint32_t keys_between(const Segment& s, std::int64_t tile, std::int64_t from, std::int64_t to) {
  const std::int64_t base = tile * kTileKeys;
  if (s.contiguous())
    return bits_between(base, s.first_cell + std::max<std::int64_t>(from, 0), s.first_cell + std::min(to, s.n_keys));
  std::uint32_t word = 0;
  const std::int64_t n = std::min<std::int64_t>(kTileKeys, static_cast<std::int64_t>(s.key_of_cell.size()) - base);
  for (std::int64_t b = 0; b < n; ++b) {
    const std::int64_t key = s.key_of_cell[static_cast<std::size_t>(base + b)];
    word |= static_cast<std::uint32_t>(key >= from && key < to && key >= 0) << b;
  }
  return word;
}

// What a pattern keeps of a tile, for one row; row numbers count from the segment's first row.
struct KeptByWindow {
  const Window& p;
  const Segment& s;
  static constexpr bool kPerRow = true;
  void block(std::int32_t, std::int32_t) {}
  std::uint32_t kept(std::int64_t tile, std::int32_t row) const {
    const std::int64_t own = s.key_of_row[static_cast<std::size_t>(row)];
    if (p.dense_row(own)) return kAll;
    return keys_between(s, tile, 0, p.sink) | keys_between(s, tile, own - p.window + 1, s.n_keys);
  }
};

struct KeptByBlocks {
  const BlockMap& p;
  const Segment& s;
  static constexpr bool kPerRow = false;
  std::span<const std::int32_t> list;
  std::size_t at = 0;
  void block(std::int32_t head, std::int32_t q_block) {
    list = p.row(head, q_block);
    at = 0;
  }
  std::uint32_t kept(std::int64_t tile, std::int32_t) {
    std::uint32_t word = 0;
    if (s.contiguous()) {  // tiles ascend, so do the lists: one pass
      const std::int64_t begin = tile * kTileKeys - s.first_cell, end = begin + kTileKeys;
      while (at < list.size() && (list[at] + std::int64_t{1}) * p.block_k <= begin) ++at;
      for (std::size_t i = at; i < list.size() && list[i] * std::int64_t{p.block_k} < end; ++i)
        word |= keys_between(s, tile, list[i] * std::int64_t{p.block_k}, (list[i] + std::int64_t{1}) * p.block_k);
      return word;
    }
    for (int b = 0; b < kTileKeys; ++b) {
      const std::int64_t cell = tile * kTileKeys + b;
      if (cell >= static_cast<std::int64_t>(s.key_of_cell.size())) break;
      const std::int64_t key = s.key(cell);
      if (key >= 0 && std::binary_search(list.begin(), list.end(), static_cast<std::int32_t>(key / p.block_k)))
        word |= 1u << b;
    }
    return word;
  }
};

struct KeptDense {
  static constexpr bool kPerRow = false;
  void block(std::int32_t, std::int32_t) {}
  std::uint32_t kept(std::int64_t, std::int32_t) const { return kAll; }
};

void begin_lists(LoweredRuns& out, std::int32_t n_rows, std::int32_t block_q, std::int32_t heads, std::int64_t n_cells) {
  out.row_ptr.clear();
  out.runs.clear();
  out.words.clear();
  out.block_q = block_q;
  out.n_rows = n_rows;
  out.heads = heads;
  out.n_cells = n_cells;
  out.attended_pairs = out.tiles_read = 0;
}

// Appends one list: all row blocks of one head.
template <class Kept>
void append_list(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t head,
                 Kept kept, LoweredRuns& out) {
  const std::int32_t n_rows = row_end - row_begin;
  std::uint32_t words[kMaxBlockQ];
  out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  for (std::int32_t block = 0; block * out.block_q < n_rows; ++block) {
    const std::int32_t first = block * out.block_q, rows = std::min(out.block_q, n_rows - first);
    kept.block(head, block);
    const std::size_t list_begin = out.runs.size();
    for (std::int64_t t = 0; t < visible.n_tiles(); ++t) {
      std::uint32_t all = kAll, any = 0, shared = kAll;
      std::int64_t pairs = 0;
      if constexpr (!Kept::kPerRow) {
        shared = kept.kept(t, first);
        if (!shared) continue;
      }
      for (std::int32_t r = 0; r < rows; ++r) {
        std::uint32_t w = visible.words(row_begin + first + r)[t];
        if constexpr (Kept::kPerRow) w &= w ? kept.kept(t, first + r) : 0u;
        else w &= shared;
        words[r] = w;
        all &= w;
        any |= w;
        pairs += std::popcount(w);
      }
      if (!any) continue;
      out.attended_pairs += static_cast<double>(pairs);
      out.tiles_read += 1;
      const auto tile = static_cast<std::int32_t>(t);
      if (all == kAll) {
        if (out.runs.size() > list_begin && out.runs.back().bits < 0 && out.runs.back().end == tile)
          ++out.runs.back().end;
        else
          out.runs.push_back({tile, tile + 1, -1});
      } else {
        out.runs.push_back({tile, tile + 1, static_cast<std::int32_t>(out.words.size() / static_cast<std::size_t>(out.block_q))});
        out.words.insert(out.words.end(), words, words + rows);
        out.words.resize(out.words.size() + static_cast<std::size_t>(out.block_q - rows), 0u);
      }
    }
    out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  }
}

}  // namespace

void lower_dense(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q,
                 LoweredRuns& out) {
  begin_lists(out, row_end - row_begin, block_q, 1, visible.n_cells());
  append_list(visible, row_begin, row_end, 0, KeptDense{}, out);
}

void lower_pattern(const Pattern& pattern, std::span<const Route> routes, const Visibility& visible,
                   const Segment& s, std::int32_t q_heads, std::int32_t block_q, LoweredRuns& out) {
  const auto* blocks = std::get_if<BlockMap>(&pattern);
  const bool per_head = !routes.empty() || (blocks && blocks->heads > 1);
  begin_lists(out, s.rows(), block_q, per_head ? q_heads : 1, visible.n_cells());
  for (std::int32_t h = 0; h < out.heads; ++h) {
    if (std::holds_alternative<Dense>(pattern) || (!routes.empty() && routes[static_cast<std::size_t>(h)] == Route::full))
      append_list(visible, s.row_begin, s.row_end, h, KeptDense{}, out);
    else if (blocks)
      append_list(visible, s.row_begin, s.row_end, h, KeptByBlocks{*blocks, s, {}, 0}, out);
    else
      append_list(visible, s.row_begin, s.row_end, h, KeptByWindow{std::get<Window>(pattern), s}, out);
  }
}

Status check_plan(const Plan& plan, const Grid& grid) {
  if (!plan.routes.empty() && plan.routes.size() != static_cast<std::size_t>(grid.heads))
    return bad_argument(fmt::format("plan: {} routes, need none or one for each of {} query heads", plan.routes.size(),
                                    grid.heads));
  const auto* map = std::get_if<BlockMap>(&plan.pattern);
  if (!map) return {};
  LACUNA_CHECK(map->check());
  if ((map->heads != 1 && map->heads != grid.heads) || map->n_rows != grid.n_rows || map->n_keys != grid.n_keys)
    return bad_argument(fmt::format("plan: a block map of {} heads x {} rows x {} keys, need {} (or 1) x {} x {}",
                                    map->heads, map->n_rows, map->n_keys, grid.heads, grid.n_rows, grid.n_keys));
  return {};
}

std::int32_t block_q_of(const Pattern& pattern, std::int32_t preferred) {
  const auto* blocks = std::get_if<BlockMap>(&pattern);
  return blocks ? blocks->block_q : preferred;
}

}  // namespace lacuna
