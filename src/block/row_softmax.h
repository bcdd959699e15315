// SPDX-License-Identifier: Apache-2.0
// The two passes of a softmax over one row of scores, written so that plain float loops vectorise.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/fast_exp.h"

namespace lacuna::block {

// Independent partial results: what lets plain float loops vectorise. Fewer, and g++ unrolls the lanes
// before it comes to that.
constexpr int kLanes = 32;

inline float max_of(const float* x, std::int64_t n) {
  float lane[kLanes], best = x[0];
  std::fill(lane, lane + kLanes, x[0]);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  for (float v : lane) best = v > best ? v : best;
  return best;
}

inline float sum_of(const float* x, std::int64_t n) {
  float lane[kLanes] = {}, sum = 0;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int l = 0; l < kLanes; ++l) lane[l] += x[i + l];
  for (; i < n; ++i) sum += x[i];
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lane[l] += lane[l + half];
  return sum + lane[0];
}

// x becomes exp((x - top) * factor).
inline void exp_terms(float* x, std::int64_t n, float top, float factor) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = fast_exp((x[i] - top) * factor);
}

// Sum of exp((x - top) * factor); x is overwritten by the terms.
inline float sum_exp(float* x, std::int64_t n, float top, float factor) {
  exp_terms(x, n, top, factor);
  return sum_of(x, n);
}

// x becomes softmax(x * factor). Returns the sum before division.
inline float softmax(float* x, std::int64_t n, float factor) {
  const float sum = sum_exp(x, n, max_of(x, n), factor), inverse = 1.0f / sum;
  for (std::int64_t i = 0; i < n; ++i) x[i] *= inverse;
  return sum;
}

}  // namespace lacuna::block
