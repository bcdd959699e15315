// SPDX-License-Identifier: Apache-2.0
#include "op/keep_mass_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "pattern/tile_runs.h"

namespace lacuna::op {

void keep_mass_row_ref(const KeepMass::Args& a, int row) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float* score = a.score + row * a.score_row;
  std::uint32_t* kept = a.kept + row * a.kept_row;
  std::fill(kept, kept + a.n / kTileKeys, 0u);
  std::vector<float> order;
  for (std::int64_t c = 0; c < a.n; ++c)
    if (score[c] > -kInfinity) order.push_back(score[c]);
  if (order.empty()) return;
  std::sort(order.begin(), order.end(), std::greater<>());
  float least = -kInfinity;  // the least score that is kept
  if (order[0] < kInfinity) {
    std::vector<double> weight(order.size());
    std::transform(order.begin(), order.end(), weight.begin(), [&](float s) { return std::exp((double{s} - order[0]) * a.scale); });
    const double goal = a.mass * std::accumulate(weight.begin(), weight.end(), 0.0);
    double sum = 0;
    for (std::size_t i = 0; i < order.size() && sum < goal; ++i) {
      sum += weight[i];
      least = order[i];
    }
  }
  for (std::int64_t c = 0; c < a.n; ++c)
    if (score[c] > -kInfinity && score[c] >= least) kept[c / kTileKeys] |= 1u << (c % kTileKeys);
}

}  // namespace lacuna::op
