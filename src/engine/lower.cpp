// SPDX-License-Identifier: Apache-2.0
// One builder for all patterns. A pattern says near which tiles a row block keeps something, and for each of these which
// cells it keeps: one word for all rows, or "ask each row". Nearly all tiles are alike for all rows, so what the rows see
// in common (Visibility::row_blocks, made once per mask) decides most of them without a look at the
// rows. Adding a pattern means adding a Kept... struct.
#include "engine/lower.h"

#include <algorithm>
#include <limits>

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

// Adds the tiles of cells [begin, end) to what is near. Calls come in ascending order.
void add_near(LoweredRuns& out, std::int64_t begin, std::int64_t end) {
  if (begin >= end) return;
  const auto first = static_cast<std::int32_t>(begin / kTileKeys), last = static_cast<std::int32_t>((end - 1) / kTileKeys) + 1;
  if (!out.near.empty() && out.near.back().end >= first) out.near.back().end = std::max(out.near.back().end, last);
  else out.near.push_back({first, last});
}

struct KeptDense {
  static constexpr bool kGathers = false;
  // Makes ready for a row block: list, number, first row and rows. False: anything may be near.
  bool block(std::int32_t, std::int32_t, std::int32_t, std::int32_t) { return false; }
  // The cells that all rows of the block keep alike; per_row = true: they differ, ask row().
  std::uint32_t shared(std::int64_t, bool*) const { return kAll; }
  std::uint32_t row(std::int64_t, std::int32_t) const { return kAll; }
};

struct KeptNothing {
  static constexpr bool kGathers = false;
  bool block(std::int32_t, std::int32_t, std::int32_t, std::int32_t) { return true; }
  std::uint32_t shared(std::int64_t, bool*) const { return 0; }
  std::uint32_t row(std::int64_t, std::int32_t) const { return 0; }
};

struct KeptByWindow {
  static constexpr bool kGathers = false;
  const Window& p;
  const Segment& s;
  LoweredRuns& out;
  std::int64_t least = 0, most = 0;  // of from() over the block's rows

  // The first key of a row's window (row numbers count from the segment's first row).
  std::int64_t from(std::int32_t row) const {
    const std::int64_t own = s.key_of_row[static_cast<std::size_t>(row)];
    return p.dense_row(own) ? 0 : own - p.window + 1;
  }
  bool block(std::int32_t, std::int32_t, std::int32_t first, std::int32_t rows) {
    least = most = from(first);
    for (std::int32_t r = first + 1; r < first + rows; ++r) {
      least = std::min(least, from(r));
      most = std::max(most, from(r));
    }
    if (!s.contiguous()) return false;
    add_near(out, s.first_cell, s.first_cell + std::min(p.sink, s.n_keys));
    add_near(out, s.first_cell + std::max<std::int64_t>(least, 0), s.first_cell + s.n_keys);
    return true;
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
  static constexpr bool kGathers = false;
  const BlockMap& p;
  const Segment& s;
  LoweredRuns& out;
  std::span<const std::int32_t> list;

  bool block(std::int32_t head, std::int32_t q_block, std::int32_t, std::int32_t) {
    for (std::int32_t b : list) out.in_list[static_cast<std::size_t>(b)] = 0;
    list = p.row(head, q_block);
    for (std::int32_t b : list) out.in_list[static_cast<std::size_t>(b)] = 1;
    if (!s.contiguous()) return false;
    for (std::int64_t b : list)
      add_near(out, s.first_cell + b * p.block_k, s.first_cell + std::min<std::int64_t>((b + 1) * p.block_k, s.n_keys));
    return true;
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

// A row block's ranges, laid out as words of cells.
struct KeptByRanges {
  static constexpr bool kGathers = true;
  const Ranges& p;
  const Segment& s;
  LoweredRuns& out;

  bool block(std::int32_t list, std::int32_t q_block, std::int32_t, std::int32_t) {
    for (const TileSpan& t : before) std::fill(out.in_block.begin() + t.begin, out.in_block.begin() + t.end, 0u);
    before.clear();
    const bool in_order = p.of == Ranges::Of::cells || s.contiguous();
    const std::int64_t shift = p.of == Ranges::Of::cells ? 0 : s.first_cell;
    for (const Range& r : p.row(list, q_block)) {
      if (!in_order) {
        for (std::int32_t key = r.begin; key < r.end; ++key) {
          const std::int64_t cell = s.cell(key);
          out.in_block[static_cast<std::size_t>(cell / kTileKeys)] |= 1u << (cell % kTileKeys);
        }
        continue;
      }
      const std::int64_t begin = r.begin + shift, end = r.end + shift;
      add_near(out, begin, end);
      for (std::int64_t t = begin / kTileKeys; t * kTileKeys < end; ++t)
        out.in_block[static_cast<std::size_t>(t)] |= bits_between(t * kTileKeys, begin, end);
    }
    if (in_order) before = out.near;
    else before.push_back({0, static_cast<std::int32_t>(out.in_block.size())});
    return in_order;
  }
  std::uint32_t shared(std::int64_t tile, bool*) const { return out.in_block[static_cast<std::size_t>(tile)]; }
  std::uint32_t row(std::int64_t tile, std::int32_t) const { return out.in_block[static_cast<std::size_t>(tile)]; }

  std::vector<TileSpan> before;  // words that the block before set
};

void begin_lists(LoweredRuns& out, std::int32_t n_rows, std::int32_t block_q, std::int32_t heads, std::int64_t n_cells) {
  out.row_ptr.clear();
  out.runs.clear();
  out.words.clear();
  out.slots.clear();
  out.block_q = block_q;
  out.n_rows = n_rows;
  out.heads = heads;
  out.heads_per_list = 1;
  out.n_cells = n_cells;
  out.first_gathered = static_cast<std::int32_t>((n_cells + kTileKeys - 1) / kTileKeys);
  out.attended_pairs = out.tiles_read = out.cells_gathered = 0;
  out.list_pairs.clear();
}

void append_full(LoweredRuns& out, std::size_t list_begin, std::int32_t tile) {
  // A run has tiles of one kind.
  if (out.runs.size() > list_begin && out.runs.back().bits < 0 && out.runs.back().end == tile && tile != out.first_gathered)
    ++out.runs.back().end;
  else
    out.runs.push_back({tile, tile + 1, -1});
}

// A tile of which a row block keeps fewer cells than this is gathered cell by cell. For many rows a
// gathered cell costs a little more than one of a tile, which is paid for whole; for one row the tile
// is a stream and its cells are not (docs/decisions/011).
constexpr std::int32_t kGatherBelow = 24, kGatherBelowDecode = 12;

void append_words(LoweredRuns& out, std::int32_t tile, const std::uint32_t* words, std::int32_t rows) {
  out.runs.push_back({tile, tile + 1, static_cast<std::int32_t>(out.words.size() / static_cast<std::size_t>(out.block_q))});
  out.words.insert(out.words.end(), words, words + rows);
  out.words.resize(out.words.size() + static_cast<std::size_t>(out.block_q - rows), 0u);
}

// The cells that a row block gathers become tiles behind the cache's own: first the cells that every
// row sees, so that most of these tiles are full.
void append_gathered(const Visibility& visible, std::int32_t first_row, std::int32_t rows, std::size_t list_begin,
                     LoweredRuns& out, std::int64_t* pairs) {
  const std::size_t whole = out.whole.size();
  out.whole.insert(out.whole.end(), out.part.begin(), out.part.end());
  const std::size_t n = out.whole.size();
  out.cells_gathered += static_cast<double>(n);
  std::uint32_t words[kMaxBlockQ];
  for (std::size_t at = 0; at < n; at += kTileKeys) {
    const auto tile = out.first_gathered + static_cast<std::int32_t>(out.slots.size() / kTileKeys);
    const std::size_t end = std::min(at + kTileKeys, n);
    out.slots.insert(out.slots.end(), out.whole.begin() + static_cast<std::ptrdiff_t>(at),
                     out.whole.begin() + static_cast<std::ptrdiff_t>(end));
    out.slots.resize(out.slots.size() + kTileKeys - (end - at), -1);
    if (at + kTileKeys <= whole) {
      append_full(out, list_begin, tile);
      *pairs += std::int64_t{rows} * kTileKeys;
      continue;
    }
    for (std::int32_t r = 0; r < rows; ++r) {
      words[r] = 0;
      for (std::size_t i = at; i < end; ++i)
        words[r] |= static_cast<std::uint32_t>(visible.sees(first_row + r, out.whole[i])) << (i - at);
      *pairs += count_bits(words[r]);
    }
    append_words(out, tile, words, rows);
  }
  out.whole.clear();
  out.part.clear();
}

// The rows that are lowered: all of a segment in blocks of block_q, or some of them (`only`, counted from `begin`), each a block
// of its own that keeps what the block of block_q rows it lies in keeps.
struct RowSet {
  std::int32_t begin = 0, end = 0, block_q = 0;
  std::span<const std::int32_t> only = {};
};

// Appends one list: all row blocks of one head.
template <class Kept>
void append_list(const Visibility& visible, const RowSet& set, std::int32_t head, Kept kept, bool gather, LoweredRuns& out) {
  const std::int32_t row_begin = set.begin, n_rows = set.end - set.begin;
  const bool alone = n_rows == 1 || !set.only.empty();
  const std::int32_t gather_below = !Kept::kGathers || !gather ? 0 : alone ? kGatherBelowDecode : kGatherBelow;
  const std::int64_t n_tiles = visible.n_tiles();
  // A row alone is its own summary: no table is made for it.
  const RowBlocks* table = alone ? nullptr : &visible.row_blocks(row_begin, set.end, out.block_q);
  std::uint32_t words[kMaxBlockQ];
  std::int64_t pairs = 0, tiles = 0;
  out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  for (std::int32_t block = 0; block * out.block_q < out.n_rows; ++block) {
    const std::int32_t first = set.only.empty() ? block * out.block_q : set.only[static_cast<std::size_t>(block)];
    const std::int32_t rows = alone ? 1 : std::min(out.block_q, n_rows - first);
    const std::uint32_t* all = table ? table->all.data() + block * n_tiles : visible.words(row_begin + first);
    const std::uint32_t* any = table ? table->any.data() + block * n_tiles : visible.words(row_begin + first);
    const std::size_t list_begin = out.runs.size();
    out.near.clear();
    if (!kept.block(head, first / set.block_q, first, rows)) out.near.assign(1, {0, static_cast<std::int32_t>(n_tiles)});
    const auto append_tile = [&](std::int64_t t) {
      if (!any[t]) return;
      bool per_row = false;
      const std::uint32_t shared = kept.shared(t, &per_row);
      const auto tile = static_cast<std::int32_t>(t);
      if (!per_row) {
        if (!(any[t] & shared)) return;
        if (Kept::kGathers && count_bits(any[t] & shared) < gather_below) {
          for (std::uint32_t bits = any[t] & shared; bits; bits &= bits - 1) {
            const std::int32_t b = __builtin_ctz(bits);
            (all[t] >> b & 1u ? out.whole : out.part).push_back(static_cast<std::int32_t>(t * kTileKeys + b));
          }
          return;
        }
        if ((all[t] & shared) == kAll) {
          pairs += std::int64_t{rows} * kTileKeys;
          ++tiles;
          append_full(out, list_begin, tile);
          return;
        }
      }
      std::uint32_t together = 0, common = kAll;
      for (std::int32_t r = 0; r < rows; ++r) {
        words[r] = visible.words(row_begin + first + r)[t] & (per_row ? kept.row(t, first + r) : shared);
        together |= words[r];
        common &= words[r];
        pairs += count_bits(words[r]);
      }
      if (!together) return;
      ++tiles;
      if (common == kAll) {  // per row, yet all rows keep all of it
        append_full(out, list_begin, tile);
        return;
      }
      append_words(out, tile, words, rows);
    };
    for (const TileSpan& near : out.near)
      for (std::int64_t t = near.begin; t < near.end; ++t) append_tile(t);
    if (Kept::kGathers && !(out.whole.empty() && out.part.empty()))
      append_gathered(visible, row_begin + first, rows, list_begin, out, &pairs);
    out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  }
  out.list_pairs.push_back(static_cast<double>(pairs));
  out.attended_pairs += static_cast<double>(pairs);
  out.tiles_read += static_cast<double>(tiles);
}

}  // namespace

void lower_dense(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q,
                 LoweredRuns& out) {
  begin_lists(out, row_end - row_begin, block_q, 1, visible.n_cells());
  append_list(visible, {row_begin, row_end, block_q}, 0, KeptDense{}, false, out);
}

void lower_dense_rows(const Visibility& visible, std::span<const std::int32_t> rows, LoweredRuns& out) {
  const auto n = static_cast<std::int32_t>(rows.size());
  begin_lists(out, n, std::min(n, kMaxBlockQ), 1, visible.n_cells());
  std::uint32_t words[kMaxBlockQ];
  out.row_ptr.push_back(0);
  for (std::int32_t first = 0; first < n; first += out.block_q) {
    const std::int32_t count = std::min(out.block_q, n - first);
    const std::size_t list_begin = out.runs.size();
    for (std::int64_t t = 0; t < visible.n_tiles(); ++t) {
      std::uint32_t any = 0, all = kAll;
      for (std::int32_t r = 0; r < count; ++r) {
        words[r] = visible.words(rows[static_cast<std::size_t>(first + r)])[t];
        any |= words[r];
        all &= words[r];
      }
      if (!any) continue;
      if (all == kAll) append_full(out, list_begin, static_cast<std::int32_t>(t));
      else append_words(out, static_cast<std::int32_t>(t), words, count);
    }
    out.row_ptr.push_back(static_cast<std::int32_t>(out.runs.size()));
  }
}

namespace {

std::int32_t lists_of(const Pattern& p) {
  if (const auto* b = std::get_if<BlockMap>(&p)) return b->heads;
  if (const auto* r = std::get_if<Ranges>(&p)) return r->heads;
  return 1;
}

// The fewest lists that can say what the plan says.
std::int32_t lists_of(const Plan& plan, const LowerOptions& how) {
  if (plan.routes.empty()) return lists_of(plan.pattern());
  std::int32_t lists = 1;
  for (const Pattern& p : plan.patterns) lists = std::max(lists, lists_of(p));
  const auto same_within = [&](std::int32_t n) {  // heads of each of n lists take one route
    for (std::int32_t h = 0; h < how.q_heads; ++h)
      if (plan.route(h) != plan.route(list_of_head(n, how.q_heads, h) * (how.q_heads / n))) return false;
    return true;
  };
  for (const std::int32_t n : {1, how.kv_heads})
    if (lists <= n && same_within(n)) return n;
  return how.q_heads;
}

void append_route(const Plan& plan, Route route, const Visibility& visible, const Segment& s, std::int32_t head,
                  const LowerOptions& how, LoweredRuns& out) {
  const auto append = [&](std::int32_t list, auto kept) {
    append_list(visible, {s.row_begin, s.row_end, how.block_q, how.only}, list, kept, how.gather, out);
  };
  if (route == kRouteOff) return append(0, KeptNothing{});
  const Pattern* p = route == kRouteFull ? nullptr : &plan.patterns[static_cast<std::size_t>(route)];
  if (!p || std::holds_alternative<Dense>(*p)) return append(0, KeptDense{});
  const std::int32_t list = list_of_head(lists_of(*p), how.q_heads, head);
  if (const auto* w = std::get_if<Window>(p)) return append(0, KeptByWindow{*w, s, out});
  if (const auto* r = std::get_if<Ranges>(p)) {
    out.in_block.assign(static_cast<std::size_t>(visible.n_tiles()), 0u);
    return append(list, KeptByRanges{*r, s, out, {}});
  }
  const auto& blocks = std::get<BlockMap>(*p);
  out.in_list.assign(static_cast<std::size_t>(blocks.k_blocks()), 0);
  append(list, KeptByBlocks{blocks, s, out, {}});
}

}  // namespace

void lower_plan(const Plan& plan, const Visibility& visible, const Segment& s, const LowerOptions& how, LoweredRuns& out) {
  const std::int32_t lists = lists_of(plan, how);
  if (how.only.empty()) begin_lists(out, s.rows(), how.block_q, lists, visible.n_cells());
  else begin_lists(out, static_cast<std::int32_t>(how.only.size()), 1, lists, visible.n_cells());
  out.heads_per_list = how.q_heads / lists;
  find_tile_keys(s, visible.n_tiles(), out);
  for (std::int32_t l = 0; l < lists; ++l)
    append_route(plan, plan.route(l * out.heads_per_list), visible, s, l * out.heads_per_list, how, out);
}

namespace {

// `what` has `heads` lists over rows x n; the call has the rest.
Status check_fit(const char* what, std::int32_t lists, std::int64_t rows, std::int64_t n, const Grid& grid,
                 std::int32_t kv_heads, std::int64_t need_n) {
  if ((lists == 1 || lists == kv_heads || lists == grid.heads) && rows == grid.n_rows && n == need_n) return {};
  return bad_argument(fmt::format("plan: {} of {} lists x {} rows x {} keys, need 1, {} or {} lists x {} x {}", what, lists,
                                  rows, n, kv_heads, grid.heads, grid.n_rows, need_n));
}

}  // namespace

Status check_plan(const Plan& plan, const Grid& grid, std::int32_t kv_heads, std::int64_t n_cells) {
  if (plan.patterns.empty() || plan.patterns.size() > 64)
    return bad_argument(fmt::format("plan: {} patterns, need 1..64", plan.patterns.size()));
  if (!plan.routes.empty() && plan.routes.size() != static_cast<std::size_t>(grid.heads))
    return bad_argument(fmt::format("plan: {} routes, need none or one for each of {} query heads", plan.routes.size(),
                                    grid.heads));
  for (const Route r : plan.routes)
    if (r < kRouteOff || r >= static_cast<std::int32_t>(plan.patterns.size()))
      return bad_argument(fmt::format("plan: route {}, need {} (off), {} (full) or the number of one of {} patterns", r,
                                      kRouteOff, kRouteFull, plan.patterns.size()));
  if (!plan.pv_skip.empty() && plan.pv_skip.size() != static_cast<std::size_t>(grid.heads))
    return bad_argument(fmt::format("plan: pv_skip of {} heads, need none or one for each of {} query heads",
                                    plan.pv_skip.size(), grid.heads));
  for (const float x : plan.pv_skip)
    if (!(x >= 0)) return bad_argument(fmt::format("plan: pv_skip {}, need 0 or more; infinity leaves nothing out", x));
  std::int32_t block_q = 0;
  for (const Pattern& p : plan.patterns) {
    std::int32_t own = 0;
    if (const auto* window = std::get_if<Window>(&p)) {
      LACUNA_CHECK(window->check());
    } else if (const auto* map = std::get_if<BlockMap>(&p)) {
      LACUNA_CHECK(map->check());
      LACUNA_CHECK(check_fit("a block map", map->heads, map->n_rows, map->n_keys, grid, kv_heads, grid.n_keys));
      own = map->block_q;
    } else if (const auto* ranges = std::get_if<Ranges>(&p)) {
      LACUNA_CHECK(ranges->check());
      LACUNA_CHECK(check_fit("ranges", ranges->heads, ranges->n_rows, ranges->n, grid, kv_heads,
                             ranges->of == Ranges::Of::cells ? n_cells : grid.n_keys));
      own = ranges->block_q;
    }
    if (own && block_q && own != block_q)
      return bad_argument(fmt::format("plan: patterns with blocks of {} and of {} rows: need one size", block_q, own));
    if (own) block_q = own;
  }
  return {};
}

const float* pv_skip_of(const Plan& plan) {
  const auto finite = [](float x) { return x < std::numeric_limits<float>::infinity(); };
  return std::any_of(plan.pv_skip.begin(), plan.pv_skip.end(), finite) ? plan.pv_skip.data() : nullptr;
}

std::int32_t block_q_of(const Plan& plan, std::int32_t preferred) {
  for (const Pattern& p : plan.patterns) {
    if (const auto* blocks = std::get_if<BlockMap>(&p)) return blocks->block_q;
    if (const auto* ranges = std::get_if<Ranges>(&p)) return ranges->block_q;
  }
  return preferred;
}

}  // namespace lacuna
