// SPDX-License-Identifier: Apache-2.0
// Budget: the fewest items that carry a share of the mass (top-p), found without sorting: the list is
// halved around its median and the half that holds the boundary is looked at again, O(n) in all.
//
// Papers end the list differently, so the end is a mode:
//   reach   an item is taken while the sum BEFORE it is < mass * total: the share is reached (XAttention)
//   within  an item is taken while the sum WITH it is <= mass * total: the share is not exceeded
// Forced items are always in, and their mass counts. Equal scores: the lower index first.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lacuna::block {

enum class TopMass : std::uint8_t { reach, within };

struct Weighted {
  float score = 0;
  std::int32_t index = 0;
  bool before(const Weighted& o) const { return score != o.score ? score > o.score : index < o.index; }
};

// Of scores [n] (finite, >= 0), items [0, first) and [last, n) are forced. `work` and `kept` have room
// for n; returns how many indices stand in `kept`, ascending.
inline std::int32_t top_mass(const float* score, std::int32_t n, std::int32_t first, std::int32_t last, double mass,
                             TopMass mode, Weighted* work, std::int32_t* kept) {
  last = std::max(first, last);
  double total = 0, taken = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    total += score[i];
    if (i < first || i >= last) taken += score[i];
    else work[i - first] = {score[i], i};
  }
  const double target = mass * total;
  // Invariant: in descending order, items before `lo` are taken and items from `hi` on are not.
  std::int32_t lo = 0, hi = last - first;
  const auto more = [&](double before, double with) { return mode == TopMass::reach ? before < target : with <= target; };
  while (lo < hi) {
    const std::int32_t mid = lo + (hi - lo) / 2;  // is the item at `mid` taken?
    std::nth_element(work + lo, work + mid, work + hi, [](const Weighted& a, const Weighted& b) { return a.before(b); });
    double before = taken;
    for (std::int32_t i = lo; i < mid; ++i) before += work[i].score;
    if (more(before, before + work[mid].score)) {
      taken = before + work[mid].score;
      lo = mid + 1;
    } else {
      hi = mid;
    }
  }
  // The order is total, so the last item taken tells the others apart; the pass keeps them ascending.
  std::int32_t count = 0;
  for (std::int32_t i = 0; i < n; ++i) {
    const bool forced = i < first || i >= last;
    if (forced || (lo > 0 && !work[lo - 1].before({score[i], i}))) kept[count++] = i;
  }
  return count;
}

}  // namespace lacuna::block
