// SPDX-License-Identifier: Apache-2.0
#include "op/segment_mass_ref.h"

#include <cmath>
#include <vector>

namespace lacuna::op {

void segment_mass_group_ref(const SegmentMass::Args& a, int head, int group) {
  std::vector<double> mass(static_cast<std::size_t>(a.segments())), weight(static_cast<std::size_t>(a.columns));
  for (std::int32_t r = a.group_ptr[group]; r < a.group_ptr[group + 1]; ++r) {
    const float* score = a.score + head * a.score_head + r * a.score_row;
    float top = score[0];
    for (std::int32_t c = 0; c < a.end[r]; ++c) top = score[c] > top || top != top ? score[c] : top;
    double sum = 0;
    for (std::int32_t c = 0; c < a.end[r]; ++c) {
      const double x = (double{score[c]} - top) * a.scale;
      weight[static_cast<std::size_t>(c)] = x >= -87 ? std::exp(x) : std::exp(-87.0);  // NaN too
      sum += weight[static_cast<std::size_t>(c)];
    }
    for (std::int32_t c = 0; c < a.end[r]; ++c)
      mass[static_cast<std::size_t>(c / a.segment)] += weight[static_cast<std::size_t>(c)] / sum;
  }
  for (std::int32_t b = 0; b < a.segments(); ++b)
    a.mass[head * a.mass_head + std::int64_t{group} * a.segments() + b] = static_cast<float>(mass[static_cast<std::size_t>(b)]);
}

}  // namespace lacuna::op
