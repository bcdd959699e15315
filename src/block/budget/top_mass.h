// SPDX-License-Identifier: Apache-2.0
// Budget: the fewest items that carry a share of the mass (top-p), found without sorting (threshold.h).
//
// Papers end the list differently, so the end is a mode:
//   reach   an item is taken while the sum BEFORE it is < mass * total: the share is reached (XAttention)
//   within  an item is taken while the sum WITH it is <= mass * total: the share is not exceeded
// Forced items are always in, and their mass counts. Equal scores: the lower index first.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/budget/threshold.h"
#include "block/row_softmax.h"

namespace lacuna::block {

enum class TopMass : std::uint8_t { reach, within };

// Eight buckets to a power of two, over 2^32: what a share is made of.
struct MassRule {
  using Sum = double;
  static constexpr int kShift = 20, kBits = 8;
  std::uint32_t top = 0;
  double taken = 0;
  double mass = 1;
  TopMass mode = TopMass::reach;
  double target = 0;
  double weight(float score) const { return score; }
  void begin(double total) { target = mass * (taken + total); }
  bool more(double before, double with) const { return mode == TopMass::reach ? before < target : with <= target; }
};

// Of scores [n] (finite, >= 0), items [0, first) and [last, n) are forced. `work` and `kept` have room
// for n; returns how many indices stand in `kept`, ascending.
inline std::int32_t top_mass(const float* score, std::int32_t n, std::int32_t first, std::int32_t last, double mass,
                             TopMass mode, float* work, std::int32_t* kept) {
  last = std::max(first, last);
  double forced = 0;
  for (std::int32_t i = 0; i < first; ++i) forced += score[i];
  for (std::int32_t i = last; i < n; ++i) forced += score[i];
  if (first == last) {
    for (std::int32_t i = 0; i < n; ++i) kept[i] = i;
    return n;
  }
  const std::uint32_t top = order_of(max_of(score + first, last - first));
  const MassRule rule{.top = top, .taken = forced, .mass = mass, .mode = mode};
  Threshold end = threshold(score + first, last - first, rule, work);
  std::int32_t count = 0;
  for (std::int32_t i = 0; i < n; ++i)
    if (i < first || i >= last || end.take(score[i])) kept[count++] = i;
  return count;
}

}  // namespace lacuna::block
