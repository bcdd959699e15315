// SPDX-License-Identifier: Apache-2.0
#include "op/top_weights_ref.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

namespace lacuna::op {

void top_weights_row_ref(const TopWeights::Args& a, int row) {
  const float* weight = a.weight + row * a.weight_row;
  const std::int32_t forced = std::min(a.forced, a.n), count = a.count ? a.count[row] : a.n;
  const double goal = a.mass < 1 ? a.mass * std::accumulate(weight, weight + a.n, 0.0) : std::numeric_limits<double>::infinity();
  std::vector<std::int32_t> order(static_cast<std::size_t>(a.n));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin() + forced, order.end(), [&](std::int32_t x, std::int32_t y) { return weight[x] > weight[y]; });
  double sum = std::accumulate(weight, weight + forced, 0.0);
  std::int32_t taken = forced;
  for (; taken < a.n && taken < count; ++taken) {
    sum += weight[order[static_cast<std::size_t>(taken)]];
    if (sum > goal) break;
  }
  if (a.taken) a.taken[row] = taken;
  if (!a.kept) return;
  std::uint32_t* kept = a.kept + row * a.kept_row;
  std::fill(kept, kept + (a.n + 31) / 32, 0u);
  for (std::int32_t i = 0; i < taken; ++i) kept[order[static_cast<std::size_t>(i)] / 32] |= 1u << (order[static_cast<std::size_t>(i)] % 32);
}

}  // namespace lacuna::op
