// SPDX-License-Identifier: Apache-2.0
// lower: from what the model allows and what a method keeps to the runs of tiles a kernel walks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "method/method.h"
#include "pattern/invert.h"  // of a LoweredRuns::view(), for gradients
#include "pattern/pattern.h"
#include "pattern/tile_runs.h"
#include "pattern/visibility.h"

namespace lacuna {

// Tiles [begin, end).
struct TileSpan {
  std::int32_t begin = 0, end = 0;
};

// Owns what a TileRuns points to. Reused from call to call: its vectors keep their capacity.
struct LoweredRuns {
  std::vector<std::int32_t> row_ptr;
  std::vector<TileRun> runs;
  std::vector<std::uint32_t> words;
  std::vector<std::int32_t> slots;      // cells of gathered tiles
  std::int32_t block_q = 0, n_rows = 0, heads = 0, heads_per_list = 1, first_gathered = 0;
  std::int64_t n_cells = 0;
  double attended_pairs = 0;  // over the lists; times the query heads that share a list
  std::vector<double> list_pairs;  // the same of each list
  double tiles_read = 0;      // sum over (list, row block) of tiles named as they lie
  double cells_gathered = 0;  // and of cells gathered
  // Working memory of the lowering: the least and greatest key of each tile, the tiles of which the current row block
  // may keep something, which key blocks the current list keeps, which cells the current row block keeps (zeros
  // but for tiles in `near`), and those to be gathered.
  std::vector<std::int32_t> tile_lo, tile_hi;
  std::vector<TileSpan> near;
  std::vector<std::uint8_t> in_list;
  std::vector<std::uint32_t> in_block;
  std::vector<std::int32_t> whole, part;

  TileRuns view() const {
    return {block_q,      n_rows,         heads,        n_cells,       row_ptr.data(), runs.data(),
            words.data(), heads_per_list, slots.data(), first_gathered};
  }
};

// Everything allowed, for rows [row_begin, row_end), one list for all heads.
void lower_dense(const Visibility& visible, std::int32_t row_begin, std::int32_t row_end, std::int32_t block_q,
                 LoweredRuns& out);

// Everything allowed, for some rows of a call, side by side; counts no pairs.
void lower_dense_rows(const Visibility& visible, std::span<const std::int32_t> rows, LoweredRuns& out);

// What a plan keeps within what is allowed, for the rows of one segment: one list where all heads are
// alike, else one per KV head or query head, as the plan's patterns and routes ask for.
struct LowerOptions {
  std::int32_t q_heads = 1, kv_heads = 1;
  std::int32_t block_q = 64;
  bool gather = true;  // lone cells may be gathered; false: an additive mask is given by cell
  // Only these rows of the segment, counted from its first: row i of the runs is row only[i]. Empty: all.
  std::span<const std::int32_t> only = {};
};
void lower_plan(const Plan& plan, const Visibility& visible, const Segment& segment, const LowerOptions& how,
                LoweredRuns& out);

// What lower_plan and the kernels would trust: routes, index lists, and sizes that fit the grid, the
// KV heads and the cache's cells.
Status check_plan(const Plan& plan, const Grid& grid, std::int32_t kv_heads, std::int64_t n_cells);

// The plan's pv_skip as op attend takes it; null: nothing finite. Borrowed from the plan.
const float* pv_skip_of(const Plan& plan);

// The block_q with which a plan is lowered, given the kernel's preferred one.
std::int32_t block_q_of(const Plan& plan, std::int32_t preferred);

}  // namespace lacuna
