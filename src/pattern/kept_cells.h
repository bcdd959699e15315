// SPDX-License-Identifier: Apache-2.0
// Which cells a row attends to, read back from the runs of tiles that a kernel walks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "pattern/tile_runs.h"

namespace lacuna {

// A bit for each cell, 32 to a word: set where the row sees the cell through its list. `words` has one for each tile of the cache.
inline void kept_cells(const TileRuns& runs, int q_head, std::int32_t row, std::span<std::uint32_t> words) {
  std::fill(words.begin(), words.end(), 0u);
  const std::int32_t* list = runs.list(q_head, row / runs.block_q);
  for (std::int32_t at = list[0]; at < list[1]; ++at) {
    const TileRun& run = runs.runs[at];
    const std::uint32_t seen = run.bits < 0 ? ~0u : runs.words[std::int64_t{run.bits} * runs.block_q + row % runs.block_q];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile) {
      if (tile < runs.first_gathered) {
        words[static_cast<std::size_t>(tile)] |= seen;
        continue;
      }
      for (std::uint32_t bits = seen; bits; bits &= bits - 1) {
        const std::int64_t cell = runs.cell(tile, __builtin_ctz(bits));
        if (cell >= 0) words[static_cast<std::size_t>(cell / kTileKeys)] |= 1u << (cell % kTileKeys);
      }
    }
  }
}

}  // namespace lacuna
