// SPDX-License-Identifier: Apache-2.0
// One builder for all patterns. A pattern says for each tile of a row block which cells it keeps: one
// word for all rows, or "ask each row". Nearly all tiles are alike for all rows, so what the rows see
// in common (Visibility::row_blocks, made once per mask) decides most of them without a look at the
// rows. Adding a pattern means adding a Kept... struct.
#include "engine/lower.h"

#include <algorithm>

#include <fmt/format.h>

namespace lacuna {
namespace {

constexpr std::uint32_t kAll = 0xffffffffu;

// Least and greatest key of every tile (lo > hi: no key of this segment).
void find_tile_keys(const Segment& s, std::int64_t n_tiles, LoweredRuns& out) {
  out.tile_lo.resize(static_cast<std::size_t>(n_tiles));
  out.tile_hi.resize(static_cast<std::size_t>(n_tiles));
  for (std::int64_t t = 0; t < n_tiles; ++t) {
    const std::int64_t base = t * kTileKeys;
    std::int64_t lo = s.n_keys, hi = -1;
    if (s.contiguous()) {
      lo = std::max<std::int64_t>(0, base - s.first_cell);
      hi = std::min(s.n_keys, base - s.first_cell + kTileKeys) - 1;
    } else {
      const std::int64_t end = std::min<std::int64_t>(base + kTileKeys, static_cast<std::int64_t>(s.key_of_cell.size()));
      for (std::int64_t c = base; c < end; ++c) {
        const std::int64_t key = s.key_of_cell[static_cast<std::size_t>(c)];
        hi = std::max(hi, key);
        lo = key >= 0 ? std::min(lo, key) : lo;
      }
    }
    out.tile_lo[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(lo);
    out.tile_hi[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(hi);
  }
}

// Cells of a tile whose keys pass a test.
template <class Test>
std::uint32_t cells_where(const Segment& s, std::int64_t tile, Test test) {
  std::uint32_t word = 0;
  const std::int64_t base = tile * kTileKeys;
  const std::int64_t n = std::min<std::int64_t>(kTileKeys, static_cast<std::int64_t>(s.key_of_cell.size()) - base);
  for (std::int64_t b = 0; b < n; ++b) {
    const std::int32_t key = s.key_of_cell[static_cast<std::size_t>(base + b)];
    word |= static_cast<std::uint32_t>(key >= 0 && test(key)) << b;
  }
  return word;
}

struct KeptDense {
  void block(std::int32_t, std::int32_t, std::int32_t, std::int32_t) {}
  // The cells that all rows of the block keep alike; per_row = true: they differ, ask row().
  std::uint32_t shared(std::int64_t, bool*) const { return kAll; }
  std::uint32_t row(std::int64_t, std::int32_t) const { return kAll; }
};

struct KeptByWindow {
  const Window& p;
  const Segment& s;
  const LoweredRuns& out;
  std::int64_t least = 0, most = 0;  // of from() over the block's rows

  // The first key of a row's window (row numbers count from the segment's first row).
  std::int64_t from(std::int32_t row) const {
    const std::int64_t own = s.key_of_row[static_cast<std::size_t>(row)];
    return p.dense_row(own) ? 0 : own - p.window + 1;
  }
  void block(std::int32_t, std::int32_t, std::int32_t first, std::int32_t rows) {
    least = most = from(first);
    for (std::int32_t r = first + 1; r < first + rows; ++r) {
      least = std::min(least, from(r));
      most = std::max(most, from(r));
    }
  }
  std::uint32_t shared(std::int64_t tile, bool* per_row) const {
    const std::int64_t lo = out.tile_lo[static_cast<std::size_t>(tile)], hi = out.tile_hi[static_cast<std::size_t>(tile)];
    if (hi < p.sink || lo >= most) return kAll;
    if (lo >= p.sink && hi < least) return 0;
    *per_row = true;
    return 0;
  }
  std::uint32_t row(std::int64_t tile, std::int32_t row) const {
    const std::int64_t begin = from(row);
    if (!s.contiguous())
      return cells_where(s, tile, [&](std::int32_t key) { return key < p.sink || key >= begin; });
    const std::int64_t base = tile * kTileKeys - s.first_cell;
    return bits_between(base, 0, p.sink) | bits_between(base, std::max<std::int64_t>(begin, 0), s.n_keys);
  }
};

struct KeptByBlocks {
  const BlockMap& p;
  const Segment& s;
  LoweredRuns& out;
  std::span<const std::int32_t> list;

  void block(std::int32_t head, std::int32_t q_block, std::int32_t, std::int32_t) {
    for (std::int32_t b : list) out.in_list[static_cast<std::size_t>(b)] = 0;
    list = p.row(head, q_block);
    for (std::int32_t b : list) out.in_list[static_cast<std::size_t>(b)] = 1;
  }
  bool in(std::int32_t key_block) const { return out.in_list[static_cast<std::size_t>(key_block)] != 0; }
  std::uint32_t shared(std::int64_t tile, bool*) const {
    const std::int32_t lo = out.tile_lo[static_cast<std::size_t>(tile)], hi = out.tile_hi[static_cast<std::size_t>(tile)];
    if (lo > hi) return 0;
    const std::int32_t first = lo / p.block_k, last = hi / p.block_k;
    if (first == last) return in(first) ? kAll : 0;
    if (!s.contiguous()) return cells_where(s, tile, [&](std::int32_t key) { return in(key / p.block_k); });
    std::uint32_t word = 0;
    for (std::int32_t b = first; b <= last; ++b)
      if (in(b))
        word |= bits_between(tile * kTileKeys - s.first_cell, std::int64_t{b} * p.block_k, (b + std::int64_t{1}) * p.block_k);
    return word;
  }
  std::uint32_t row(std::int64_t tile, std::int32_t) const {
    bool unused = false;
    return shared(tile, &unused);
  }
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

void append_full(LoweredRuns& out, std::size_t list_begin, std::int32_t tile) {
  if (out.runs.size() > list_begin && out.runs.back().bits < 0 && out.runs.back().end == tile)
    ++out.runs.back().end;
  else
    out.runs.push_back({tile, tile + 1, -1});
}

// Appends one list: all row blocks of one head.
template <class Kept>
void append_list(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t head,
                 Kept kept, LoweredRuns& out) {
  const std::int32_t n_rows = row_end - row_begin;
  const std::int64_t n_tiles = visible.n_tiles();
  // One row is its own summary: no table is made for the rows of an audit, or of decode.
  const RowBlocks* table = n_rows > 1 ? &visible.row_blocks(row_begin, row_end, out.block_q) : nullptr;
  std::uint32_t words[kMaxBlockQ];
  std::int64_t pairs = 0, tiles = 0;
  out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  for (std::int32_t block = 0; block * out.block_q < n_rows; ++block) {
    const std::int32_t first = block * out.block_q, rows = std::min(out.block_q, n_rows - first);
    const std::uint32_t* all = table ? table->all.data() + block * n_tiles : visible.words(row_begin);
    const std::uint32_t* any = table ? table->any.data() + block * n_tiles : visible.words(row_begin);
    const std::size_t list_begin = out.runs.size();
    kept.block(head, block, first, rows);
    for (std::int64_t t = 0; t < n_tiles; ++t) {
      if (!any[t]) continue;
      bool per_row = false;
      const std::uint32_t shared = kept.shared(t, &per_row);
      const auto tile = static_cast<std::int32_t>(t);
      if (!per_row) {
        if (!(any[t] & shared)) continue;
        if ((all[t] & shared) == kAll) {
          pairs += std::int64_t{rows} * kTileKeys;
          ++tiles;
          append_full(out, list_begin, tile);
          continue;
        }
      }
      std::uint32_t together = 0, common = kAll;
      for (std::int32_t r = 0; r < rows; ++r) {
        words[r] = visible.words(row_begin + first + r)[t] & (per_row ? kept.row(t, first + r) : shared);
        together |= words[r];
        common &= words[r];
        pairs += count_bits(words[r]);
      }
      if (!together) continue;
      ++tiles;
      if (common == kAll) {  // per row, yet all rows keep all of it
        append_full(out, list_begin, tile);
        continue;
      }
      out.runs.push_back({tile, tile + 1, static_cast<std::int32_t>(out.words.size() / static_cast<std::size_t>(out.block_q))});
      out.words.insert(out.words.end(), words, words + rows);
      out.words.resize(out.words.size() + static_cast<std::size_t>(out.block_q - rows), 0u);
    }
    out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  }
  out.attended_pairs += static_cast<double>(pairs);
  out.tiles_read += static_cast<double>(tiles);
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
  find_tile_keys(s, visible.n_tiles(), out);
  if (blocks) out.in_list.assign(static_cast<std::size_t>(blocks->k_blocks()), 0);
  for (std::int32_t h = 0; h < out.heads; ++h) {
    if (std::holds_alternative<Dense>(pattern) || (!routes.empty() && routes[static_cast<std::size_t>(h)] == Route::full)) {
      append_list(visible, s.row_begin, s.row_end, h, KeptDense{}, out);
    } else if (blocks) {
      std::fill(out.in_list.begin(), out.in_list.end(), std::uint8_t{0});
      append_list(visible, s.row_begin, s.row_end, h, KeptByBlocks{*blocks, s, out, {}}, out);
    } else {
      append_list(visible, s.row_begin, s.row_end, h, KeptByWindow{std::get<Window>(pattern), s, out}, out);
    }
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
