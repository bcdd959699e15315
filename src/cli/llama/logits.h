// SPDX-License-Identifier: Apache-2.0
// What is read out of the logits of many positions.
#pragma once

#include <algorithm>
#include <cmath>

namespace lacuna::cli {

// Logits of one micro-batch and context at most, in bytes; beyond it, fewer positions are looked at.
constexpr double kMostLogitBytes = 192.0 * 1024 * 1024;

// Every how manyth position is looked at.
inline int logit_stride(int ubatch, int vocabulary) {
  return static_cast<int>(std::ceil(ubatch * 4.0 * vocabulary / kMostLogitBytes));
}

inline int top_of(const float* logits, int n) { return static_cast<int>(std::max_element(logits, logits + n) - logits); }

inline double log_sum_exp(const float* x, int n, float largest) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

}  // namespace lacuna::cli
