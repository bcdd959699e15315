// SPDX-License-Identifier: Apache-2.0
// Budget: the `count` items of highest score (top-k), found without sorting (threshold.h); equal scores:
// the lower index first. Items [0, forced) are always in and part of the count.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/budget/threshold.h"

namespace lacuna::block {

// Any floats: the buckets reach over all of them.
struct CountRule {
  using Sum = std::int32_t;
  static constexpr int kShift = 22, kBits = 10;
  static constexpr std::uint32_t top = 0xffffffffu;
  std::int32_t count = 0;
  std::int32_t taken = 0;
  std::int32_t weight(float) const { return 1; }
  void begin(std::int32_t) {}
  bool more(std::int32_t, std::int32_t with) const { return with <= count; }
};

// Of scores [n], no NaN; `work` and `kept` have room for n. Returns how many indices stand in `kept`,
// ascending: min(n, max(forced, count)).
inline std::int32_t top_count(const float* score, std::int32_t n, std::int32_t forced, std::int32_t count, float* work,
                              std::int32_t* kept) {
  forced = std::min(forced, n);
  const std::int32_t free = n - forced, take = std::clamp(count - forced, 0, free);
  for (std::int32_t i = 0; i < forced; ++i) kept[i] = i;
  if (take == 0) return forced;
  Threshold end = threshold(score + forced, free, CountRule{.count = take}, work);
  std::int32_t n_kept = forced;
  for (std::int32_t i = forced; i < n; ++i)
    if (end.take(score[i])) kept[n_kept++] = i;
  return n_kept;
}

}  // namespace lacuna::block
