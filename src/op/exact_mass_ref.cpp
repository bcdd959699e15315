// SPDX-License-Identifier: Apache-2.0
#include "op/exact_mass_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kv/element.h"
#include "kv/packed.h"

namespace lacuna::op {

void exact_mass_ref(const ExactMass::Args& a, int head, std::int64_t part) {
  const std::int64_t kv_head = head / (a.hq / a.hkv), tiles = tiles_of(a.n_cells);
  const std::int64_t begin = part * ExactMass::kPartTiles, end = std::min(begin + ExactMass::kPartTiles, tiles);
  std::vector<double> scores;
  for (std::int64_t t = begin; t < end; ++t)
    for (int b = 0; b < kTileKeys; ++b) {
      if (!(a.chosen[head * tiles + t] >> b & 1u)) continue;
      const std::int64_t at = kv_head * a.k_head + (t * kTileKeys + b) * a.k_cell;
      double s = 0;
      for (int d = 0; d < a.dk; ++d)
        s += static_cast<double>(a.q[head * a.q_head + d]) * element(a.k, a.k_type, at + d);
      s *= a.scale;
      scores.push_back(a.softcap > 0 ? a.softcap * std::tanh(s / a.softcap) : s);
    }
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const double s : scores) top = s > top ? s : top;
  const double base = std::isinf(top) && top < 0 ? 0.0 : top;
  for (const double s : scores) sum += std::exp(s - base);
  a.top[head * a.parts() + part] = static_cast<float>(top);
  a.sum[head * a.parts() + part] =
      static_cast<float>(sum * std::exp(base - static_cast<double>(static_cast<float>(base))));
}

}  // namespace lacuna::op
