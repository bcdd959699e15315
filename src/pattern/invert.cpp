// SPDX-License-Identifier: Apache-2.0
#include "pattern/invert.h"

#include <algorithm>

namespace lacuna {
namespace {

std::int32_t tiles_of_cells(std::int64_t cells) {
  return static_cast<std::int32_t>((cells + kTileKeys - 1) / kTileKeys);
}

const std::int32_t* list_at(const TileRuns& x, std::int32_t list, std::int32_t block) {
  return x.row_ptr + std::int64_t{list} * (x.n_blocks() + 1) + block;
}

// Makes entries of one list at a time, row block after row block, so that the blocks of a tile come in order.
class Inverter {
 public:
  Inverter(const TileRuns& runs, InvertedRuns& out) : x_(runs), out_(out), tiles_(tiles_of_cells(runs.n_cells)) {}

  void run() {
    gathers_ = x_.slots != nullptr;
    out_.tile_ptr.assign(static_cast<std::size_t>(x_.heads) * static_cast<std::size_t>(tiles_ + 1), 0);
    out_.words.clear();
    if (gathers_) block_entry_.assign(static_cast<std::size_t>(tiles_), kAbsent);
    for (std::int32_t list = 0; list < x_.heads; ++list) {
      counting_ = true;
      walk(list);
      std::int32_t* ptr = ptr_of(list);
      std::int32_t at = list == 0 ? 0 : ptr[-1];
      for (std::int32_t t = 0; t <= tiles_; ++t) {  // counts become where the next entry of a tile goes
        const std::int32_t n = t < tiles_ ? ptr[t] : 0;
        ptr[t] = at;
        at += n;
      }
      out_.entries.resize(static_cast<std::size_t>(ptr[tiles_]));
      counting_ = false;
      const std::int32_t first = ptr[0];
      walk(list);
      for (std::int32_t t = tiles_; t > 0; --t) ptr[t] = ptr[t - 1];  // and, full, where those of a tile end
      ptr[0] = first;
    }
    out_.view = {tiles_,
                 x_.heads,
                 x_.heads_per_list,
                 out_.tile_ptr.data(),
                 out_.entries.data(),
                 gathers_ ? out_.words.data() : x_.words};
  }

 private:
  static constexpr std::int32_t kAbsent = -1;

  std::int32_t* ptr_of(std::int32_t list) { return out_.tile_ptr.data() + std::int64_t{list} * (tiles_ + 1); }

  void walk(std::int32_t list) {
    for (std::int32_t b = 0; b < x_.n_blocks(); ++b) {
      const std::int32_t* p = list_at(x_, list, b);
      for (std::int32_t r = p[0]; r < p[1]; ++r)
        for (std::int32_t t = x_.runs[r].begin; t < x_.runs[r].end; ++t) {
          if (gathers_)
            scatter(list, b, t, x_.runs[r].bits);
          else
            add(list, t, {b, x_.runs[r].bits});
        }
      for (const std::int32_t t : in_block_) block_entry_[static_cast<std::size_t>(t)] = kAbsent;
      in_block_.clear();
    }
  }

  void add(std::int32_t list, std::int32_t tile, InverseEntry e) {
    std::int32_t& at = ptr_of(list)[tile];
    if (!counting_) out_.entries[static_cast<std::size_t>(at)] = e;
    ++at;
  }

  // With gathered tiles, cells of one tile of the cache may come from several tiles of a list: words of our own
  // join them.
  void scatter(std::int32_t list, std::int32_t b, std::int32_t tile, std::int32_t bits) {
    const std::int32_t rows = std::min(x_.block_q, x_.n_rows - b * x_.block_q);
    for (int bit = 0; bit < kTileKeys; ++bit) {
      const std::int64_t cell = x_.cell(tile, bit);
      if (cell < 0 || cell >= x_.n_cells) continue;
      const auto to = static_cast<std::int32_t>(cell / kTileKeys);
      std::int32_t& entry = block_entry_[static_cast<std::size_t>(to)];
      if (entry == kAbsent) {
        entry = counting_ ? 0 : static_cast<std::int32_t>(out_.words.size() / static_cast<std::size_t>(x_.block_q));
        in_block_.push_back(to);
        if (!counting_) out_.words.resize(out_.words.size() + static_cast<std::size_t>(x_.block_q), 0u);
        add(list, to, {b, entry});
      }
      if (counting_) continue;
      std::uint32_t* words = out_.words.data() + std::int64_t{entry} * x_.block_q;
      for (std::int32_t r = 0; r < rows; ++r) {
        const std::uint32_t word = bits < 0 ? ~0u : x_.words[std::int64_t{bits} * x_.block_q + r];
        words[r] |= (word >> bit & 1u) << (cell % kTileKeys);
      }
    }
  }

  const TileRuns& x_;
  InvertedRuns& out_;
  const std::int32_t tiles_;
  bool gathers_ = false, counting_ = true;
  std::vector<std::int32_t> block_entry_, in_block_;  // the row block's words for a tile; the tiles that have some
};

}  // namespace

void invert(const TileRuns& runs, InvertedRuns& out) { Inverter(runs, out).run(); }

}  // namespace lacuna
