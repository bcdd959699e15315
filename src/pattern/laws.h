// SPDX-License-Identifier: Apache-2.0
// Laws of patterns and of their lowered form, as functions that answer "" or the first violation in
// words. The oracle is slow and obvious: cell by cell, attended = visible AND kept.
#pragma once

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <variant>

#include "pattern/pattern.h"
#include "pattern/tile_runs.h"
#include "pattern/visibility.h"

namespace lacuna {

// Whether query head h, row i of the segment (from 0), attends cell c. A row's own key is what the
// segment says, also where rows do not follow each other.
inline bool attends(const Pattern& pattern, Grid grid, const Visibility& visible, const Segment& s, std::int32_t h,
                    std::int32_t i, std::int64_t c) {
  if (!visible.sees(s.row_begin + i, c)) return false;
  if (std::holds_alternative<Dense>(pattern)) return true;
  const std::int64_t key = s.key(c);
  grid.first_key = s.key_of_row[static_cast<std::size_t>(i)] - i;
  if (key < 0) return false;
  const std::int64_t number = names_cells(pattern) ? c : key;
  return std::visit([&](const auto& p) { return p.keeps(grid, h, i, number); }, pattern);
}

// A bit of lowered runs, read the way pattern/tile_runs.h defines them.
inline bool run_bit(const TileRuns& t, std::int32_t h, std::int32_t i, std::int64_t c) {
  const std::int32_t block = i / t.block_q, *list = t.list(h, block);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = t.runs[r];
    const std::uint32_t word =
        run.bits < 0 ? ~0u : t.words[static_cast<std::int64_t>(run.bits) * t.block_q + i % t.block_q];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile) {
      if (tile < t.first_gathered && tile != c / kTileKeys) continue;
      for (int b = 0; b < kTileKeys; ++b)
        if (word >> b & 1u && t.cell(tile, b) == c) return true;
    }
  }
  return false;
}

// Lists ascend and do not overlap; FULL runs lie below n_cells, partial runs name one tile, no bit
// lies at or above n_cells, no row beyond n_rows has bits, and no run is empty. Gathered tiles name
// cells of the cache, each once per list; places of nobody stand at the end and have no bits.
inline std::string law_runs_are_well_formed(const TileRuns& t) {
  const auto at = [](std::int32_t h, std::int32_t b, const char* what) {
    return "head " + std::to_string(h) + " row block " + std::to_string(b) + ": " + what;
  };
  if (t.block_q < 1 || t.block_q > kMaxBlockQ) return "block_q " + std::to_string(t.block_q);
  if (t.heads > 1 && t.heads_per_list < 1) return "heads_per_list " + std::to_string(t.heads_per_list);
  for (std::int32_t h = 0; h < t.heads * t.heads_per_list; h += t.heads_per_list)
    for (std::int32_t b = 0; b < t.n_blocks(); ++b) {
      const std::int32_t* list = t.list(h, b);
      if (list[1] < list[0]) return at(h, b, "row_ptr falls");
      std::int32_t last = 0;
      std::set<std::int64_t> gathered;
      for (std::int32_t r = list[0]; r < list[1]; ++r) {
        const TileRun& run = t.runs[r];
        if (run.begin < last || run.end <= run.begin) return at(h, b, "runs overlap, fall or are empty");
        last = run.end;
        std::uint32_t there = ~0u;  // places of a gathered tile that somebody has
        if (run.end > t.first_gathered) {
          if (run.begin < t.first_gathered) return at(h, b, "a run of tiles of both kinds");
          for (std::int32_t tile = run.begin; tile < run.end; ++tile)
            for (int p = 0; p < kTileKeys; ++p) {
              const std::int64_t cell = t.cell(tile, p);
              if (cell < -1 || cell >= t.n_cells) return at(h, b, "a gathered cell outside the cache");
              if (cell < 0) there &= ~(1u << p);
              else if (there != ~0u) return at(h, b, "a gathered cell behind a place of nobody");
              else if (!gathered.insert(cell).second) return at(h, b, "a cell gathered twice");
            }
          if (there != ~0u && (run.bits < 0 || r + 1 < list[1])) return at(h, b, "nobody inside a list");
        } else if (run.bits < 0) {
          if (std::int64_t{run.end} * kTileKeys > t.n_cells) return at(h, b, "a full tile beyond n_cells");
        }
        if (run.bits < 0) continue;
        if (run.end != run.begin + 1) return at(h, b, "a partial run of several tiles");
        const std::uint32_t* words = t.words + static_cast<std::int64_t>(run.bits) * t.block_q;
        const std::int64_t left = t.n_cells - std::int64_t{run.begin} * kTileKeys;
        std::uint32_t any = 0;
        for (std::int32_t i = 0; i < t.block_q; ++i) {
          if (b * t.block_q + i >= t.n_rows && words[i]) return at(h, b, "bits for a row that does not exist");
          any |= words[i];
        }
        if (!any) return at(h, b, "a partial tile without bits");
        if (run.begin >= t.first_gathered) {
          if (any & ~there) return at(h, b, "bits for nobody");
        } else if (left <= 0 || (left < kTileKeys && any >> left)) {
          return at(h, b, "bits beyond n_cells");
        }
      }
    }
  return "";
}

// Every bit of the runs of one segment equals the oracle. pattern_of(h): the pattern that query head h
// takes, or null for a head that is off. `pairs` gets the oracle's count over all `heads` query heads.
template <class PatternOf>
std::string law_runs_agree_with_keeps(const TileRuns& t, const PatternOf& pattern_of, std::int32_t heads,
                                      const Visibility& visible, const Segment& s, std::int64_t* pairs) {
  *pairs = 0;
  const Grid grid{heads, s.rows(), s.n_keys, 0};
  for (std::int32_t h = 0; h < heads; ++h)
    for (std::int32_t i = 0; i < s.rows(); ++i)
      for (std::int64_t c = 0; c < t.n_cells; ++c) {
        const Pattern* pattern = pattern_of(h);
        const bool want = pattern && attends(*pattern, grid, visible, s, h, i, c);
        if (run_bit(t, h, i, c) != want)
          return "head " + std::to_string(h) + " row " + std::to_string(i) + " cell " + std::to_string(c) +
                 (want ? ": attended, but not in the runs" : ": in the runs, but hidden or not kept");
        *pairs += want;
      }
  return "";
}

}  // namespace lacuna
