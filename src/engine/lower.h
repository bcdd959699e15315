// SPDX-License-Identifier: Apache-2.0
// lower: from what the model allows and what a method keeps to the runs of tiles a kernel walks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "method/method.h"
#include "pattern/pattern.h"
#include "pattern/tile_runs.h"
#include "pattern/visibility.h"

namespace lacuna {

// Owns what a TileRuns points to. Reused from call to call: its vectors keep their capacity.
struct LoweredRuns {
  std::vector<std::int32_t> row_ptr;
  std::vector<TileRun> runs;
  std::vector<std::uint32_t> words;
  std::int32_t block_q = 0, n_rows = 0, heads = 0;
  std::int64_t n_cells = 0;
  double attended_pairs = 0;  // over the lists; times the query heads that share a list
  double tiles_read = 0;      // sum over (list, row block) of tiles named
  // Working memory of the lowering: the least and greatest key of each tile, and which key blocks the
  // current list keeps.
  std::vector<std::int32_t> tile_lo, tile_hi;
  std::vector<std::uint8_t> in_list;

  TileRuns view() const {
    return {block_q, n_rows, heads, n_cells, row_ptr.data(), runs.data(), words.data()};
  }
};

// Everything allowed, for rows [row_begin, row_end), one list for all heads.
void lower_dense(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q,
                 LoweredRuns& out);

// The pattern within what is allowed, for the rows of one segment. One list per head where the
// pattern or the routes ask for it. `q_heads` query heads.
void lower_pattern(const Pattern& pattern, std::span<const Route> routes, const Visibility& visible,
                   const Segment& segment, std::int32_t q_heads, std::int32_t block_q, LoweredRuns& out);

// What lower_pattern and the kernels would trust: index lists, and sizes that fit the grid.
Status check_plan(const Plan& plan, const Grid& grid);

// The block_q with which a pattern is lowered, given the kernel's preferred one.
std::int32_t block_q_of(const Pattern& pattern, std::int32_t preferred);

}  // namespace lacuna
