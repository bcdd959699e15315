// SPDX-License-Identifier: Apache-2.0
// A pattern to copy: what a method keeps in a shape that Window, BlockMap and Ranges cannot say.
// First ask whether it can be said as BlockMap or Ranges: then no new pattern is needed.
//
//   1. the struct, in src/pattern/pattern.h, and its name in `using Pattern = std::variant<...>`
//   2. a Kept... struct and a branch in src/engine/lower.cpp: which cells of a tile all rows of a
//      block keep alike (shared), and which one row keeps (row), where they differ
//   3. a case in random_pattern() of test/unit/lower_test.cpp: the oracle there compares every bit
#pragma once

#include <cstdint>

#include "pattern/pattern.h"

namespace lacuna {

// Dilated window: row i keeps every `step`-th key of its last `window` ones.
struct Dilated {
  std::int64_t window = 0;
  std::int64_t step = 1;
  // The ground truth: query head, row of the segment, key. Everything else is speed.
  bool keeps(const Grid& g, std::int32_t, std::int32_t i, std::int64_t j) const {
    const std::int64_t distance = g.first_key + i - j;
    return distance < window && distance % step == 0;
  }
};

}  // namespace lacuna
