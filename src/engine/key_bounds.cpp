// SPDX-License-Identifier: Apache-2.0
#include "engine/key_bounds.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "account/certificate.h"
#include "base/half.h"
#include "block/fast_exp.h"
#include "kv/packed.h"
#include "op/side_write_ref.h"
#include "pattern/visibility.h"

namespace lacuna {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double sum_of_sizes(const op::Attend::Args& a, int head) {
  double sum = 0;
  for (std::int32_t d = 0; d < a.dk; ++d) sum += std::fabs(static_cast<double>(a.q[head * a.q_head + d]));
  return sum;
}

// No less than the soft-capped score.
double capped(const op::Attend::Args& a, double score) {
  return a.softcap > 0 ? a.softcap * (std::tanh(score / a.softcap) + 1e-12) : score;
}

}  // namespace

void largest_keys(const Int8Keys& x, std::int64_t n_cells, int kv_head, std::vector<double>& largest) {
  float scales_of[kTileKeys] = {};  // by place in the tile, as vectors have it
  std::vector<float> centres(static_cast<std::size_t>(x.dim), 0.0f);
  for (std::int64_t t = 0; t < tiles_of(n_cells); ++t) {
    const float* scales = static_cast<const float*>(x.data) + op::int8_scale_offset(x, t * kTileKeys, kv_head);
    const auto* centre = static_cast<const std::uint16_t*>(x.data) + op::int8_centre_offset(x, t, kv_head, 0);
    for (int b = 0; b < kTileKeys; ++b)
      scales_of[b] = scales[b] > scales_of[b] ? scales[b] : scales_of[b];  // NaN: a key that is not finite
    for (std::size_t d = 0; d < centres.size(); ++d)
      centres[d] = std::max(centres[d], std::fabs(bf16_to_float(centre[d])));
  }
  // A key is off its centre by 127 scales and roundings; a box of halves is wider than its keys by 2^-10, or by the
  // least half.
  const double scale = *std::max_element(scales_of, scales_of + kTileKeys);
  largest.clear();
  for (const float centre : centres) largest.push_back(1.002 * (static_cast<double>(centre) + 128.0 * scale) + 0x1p-23);
}

double largest_sum(const op::Attend::Args& a, int head, std::span<const double> largest) {
  constexpr double kFar = 0x1p100;  // from the end of f32
  double sum = 0;
  for (std::size_t d = 0; d < largest.size(); ++d)
    sum += std::fabs(static_cast<double>(a.q[head * a.q_head + static_cast<std::int64_t>(d)])) * largest[d];
  // Of keys in 8 bits it is q . n that is added up, before a scale that may be small.
  if (!(sum < kFar && sum_of_sizes(a, head) < kFar)) return kInfinity;  // NaN too
  return sum * std::fabs(a.scale);
}

void bound_by_bytes(const op::Attend::Args& a, const LeftOutCells& left, const Int8Keys& x, const float* score,
                    std::vector<double>& most) {
  // Beyond e^80 times what is kept it is all the same: nothing else counts, and a share rounds to 1.
  constexpr float kMost = 80.0f;
  // fast_exp is off by 6e-6, and its argument by roundings of numbers up to 128.
  constexpr double kRounding = 1e-4;
  // Half a step, and how far the step and the rest that it divides were rounded; keys that are smaller than any step.
  constexpr double kHalf = 0.5001, kSmallest = 0x1p-90;
  const double sizes = sum_of_sizes(a, left.head) * a.scale, error = score_error(a.dk, 2 * left.size);
  std::fill(most.begin(), most.end(), 0.0);
  for (std::int64_t t = 0; t < left.tiles; ++t) {
    const std::uint32_t word = left.words[t];
    if (!word) continue;
    const float* scales =
        static_cast<const float*>(x.data) + op::int8_scale_offset(x, t * kTileKeys, left.head / (a.hq / a.hkv));
    float log[kTileKeys], weight[kTileKeys];
    for (int b = 0; b < kTileKeys; ++b) {
      const double above = sizes * (kHalf * static_cast<double>(scales[b]) + kSmallest) + error;
      log[b] =
          static_cast<float>(capped(a, a.scale * static_cast<double>(score[t * kTileKeys + b]) + above) - left.least);
    }
    for (int b = 0; b < kTileKeys; ++b) weight[b] = block::fast_exp(log[b] < kMost ? log[b] : kMost);
    for (int b = 0; b < kTileKeys; ++b)
      if (word >> b & 1u)
        most[static_cast<std::size_t>((t * kTileKeys + b) / left.page)] +=
            log[b] < std::numeric_limits<float>::infinity() ? static_cast<double>(weight[b]) * (1 + kRounding)
                                                            : kInfinity;
  }
}

void lower_by_boxes(const op::Attend::Args& a, const LeftOutCells& left, const float* score,
                    std::vector<double>& most) {
  constexpr double kLeast = 1e-300;  // exp gives 0 for what is less: too little is never said
  const double error = score_error(a.dk, left.size);
  for (std::size_t p = 0; p < most.size(); ++p) {
    if (most[p] == 0 || most[p] == kInfinity) continue;
    const std::int64_t begin = static_cast<std::int64_t>(p) * left.page, end = begin + left.page;
    int n = 0;
    for (std::int64_t t = begin / kTileKeys; t * kTileKeys < end && t < left.tiles; ++t)
      n += count_bits(left.words[t] & bits_between(t * kTileKeys, begin, end));
    const double weight = std::exp(capped(a, a.scale * static_cast<double>(score[p]) + error) - left.least);
    if (weight < kInfinity) most[p] = std::min(most[p], n * std::max(weight, kLeast));  // not of what is no number
  }
}

}  // namespace lacuna
