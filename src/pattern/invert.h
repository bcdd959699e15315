// SPDX-License-Identifier: Apache-2.0
// invert: the inverse of a selection, by counting. Time and memory: one entry per (list, row block, tile).
#pragma once

#include <cstdint>
#include <vector>

#include "pattern/inverse_runs.h"
#include "pattern/tile_runs.h"

namespace lacuna {

// Owns what an InverseRuns points to. Reused from call to call: its vectors keep their capacity.
struct InvertedRuns {
  std::vector<std::int32_t> tile_ptr;
  std::vector<InverseEntry> entries;
  std::vector<std::uint32_t> words;  // of its own where tiles are gathered; else the selection's are borrowed
  InverseRuns view{};
};

// Without gathered tiles `out.view` borrows the words of `runs`.
void invert(const TileRuns& runs, InvertedRuns& out);

}  // namespace lacuna
