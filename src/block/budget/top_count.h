// SPDX-License-Identifier: Apache-2.0
// Budget: the `count` items of highest score (top-k), found without sorting; equal scores: the lower
// index first. Items [0, forced) are always in and part of the count.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/budget/top_mass.h"

namespace lacuna::block {

// Of scores [n]; `work` and `kept` have room for n. Returns how many indices stand in `kept`, ascending:
// min(n, max(forced, count)).
inline std::int32_t top_count(const float* score, std::int32_t n, std::int32_t forced, std::int32_t count,
                              Weighted* work, std::int32_t* kept) {
  forced = std::min(forced, n);
  const std::int32_t free = n - forced, take = std::clamp(count - forced, 0, free);
  for (std::int32_t i = 0; i < free; ++i) work[i] = {score[forced + i], forced + i};
  if (take > 0 && take < free)
    std::nth_element(work, work + take - 1, work + free, [](const Weighted& a, const Weighted& b) { return a.before(b); });
  for (std::int32_t i = 0; i < forced; ++i) kept[i] = i;
  for (std::int32_t i = 0; i < take; ++i) kept[forced + i] = work[i].index;
  std::sort(kept + forced, kept + forced + take);
  return forced + take;
}

}  // namespace lacuna::block
