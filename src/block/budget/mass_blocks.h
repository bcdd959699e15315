// SPDX-License-Identifier: Apache-2.0
// Budget: from the mass of every (head, row block, key block) to the block map that keeps a share of
// it, with sinks and the newest keys always in.
#pragma once

#include <cstdint>

#include "op/context.h"
#include "pattern/pattern.h"

namespace lacuna::block {

struct MassBlocks {
  Grid grid;
  std::int32_t block = 128;  // rows and keys
  double mass = 0.9;         // share to keep of each row block's mass (top_mass.h, mode reach)
  std::int64_t sink = 1;     // first keys, always kept: rounded up to whole blocks
  std::int64_t window = 1;   // keys up to a row's own, always kept, for every row of the block
};

// `score` [heads][row blocks][key blocks], all >= 0. Candidates of a row block are the key blocks up to
// the one of its last row's own key. Lists are in kKeptSlot and kCountSlot while they are made.
BlockMap keep_mass(const MassBlocks& m, const float* score, Context& context);

}  // namespace lacuna::block
