// SPDX-License-Identifier: Apache-2.0
// The nearest name to a misspelt one, for error messages.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace lacuna {

// Levenshtein distance.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t up = row[j];
      row[j] = std::min({up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = up;
    }
  }
  return row[b.size()];
}

// The candidate nearest to `name`, or "" if none is near enough to be meant.
inline std::string nearest(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t distance = std::max<std::size_t>(2, name.size() / 2) + 1;
  for (const auto& c : candidates)
    if (const std::size_t d = edit_distance(name.substr(0, 64), c); d < distance) {
      distance = d;
      best = c;
    }
  return best;
}

}  // namespace lacuna
