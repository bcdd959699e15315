// SPDX-License-Identifier: Apache-2.0
// Loss: statistics of lost mass over audited rows. Lost mass of a row = share of its exact softmax
// that fell on keys left out = 1 - exp(lse_kept - lse_all).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "lacuna/report.h"

namespace lacuna {

constexpr std::int64_t kMinAuditedKeys = 256;  // shorter rows are not counted (DESIGN, words)

inline double lost_mass(double lse_kept, double lse_all) {
  if (lse_all == -INFINITY) return 0;
  return std::clamp(1.0 - std::exp(lse_kept - lse_all), 0.0, 1.0);
}

// The number that Student's t with `freedom` degrees of freedom stays under with 95 % probability: the normal one with the
// first terms of Cornish and Fisher's series, off by less than 1 % from 3 degrees of freedom up.
inline double student_95(double freedom) {
  constexpr double z = 1.6448536269514722, z2 = z * z;
  return z * (1 + (z2 + 1) / (4 * freedom) + ((5 * z2 + 16) * z2 + 3) / (96 * freedom * freedom) +
              (((3 * z2 + 19) * z2 + 17) * z2 - 15) / (384 * freedom * freedom * freedom));
}

// Mean and maximum are exact; the 95th percentile comes from bins of 1/4096 (relative below 1/64:
// square-root spacing). What is between two calls of end_draw() was drawn by chance together; what is never closed was not
// left to chance.
class LossCounter {
 public:
  void add(double loss) {
    ++rows_;
    sum_ += loss;
    ++open_rows_;
    open_sum_ += loss;
    max_ = std::max(max_, loss);
    ++bins_[static_cast<std::size_t>(std::min(std::sqrt(loss), 1.0) * (kBins - 1) + 0.5)];
  }
  void end_draw() {
    if (!open_rows_) return;
    const double mean = open_sum_ / static_cast<double>(open_rows_);
    ++draws_;
    draw_sum_ += mean;
    draw_squares_ += mean * mean;
    open_rows_ = 0;
    open_sum_ = 0;
  }
  LossStats stats() const {
    LossStats s;
    s.rows = rows_;
    if (!rows_) return s;
    s.mean = sum_ / static_cast<double>(rows_);
    s.max = max_;
    s.upper = upper(s.mean);
    std::int64_t below = 0;
    const double target = 0.95 * static_cast<double>(rows_);
    for (std::size_t i = 0; i < kBins; ++i)
      if (static_cast<double>(below += bins_[i]) >= target) {
        const double root = static_cast<double>(i) / (kBins - 1);
        s.p95 = std::min(root * root, max_);
        break;
      }
    return s;
  }

 private:
  double upper(double mean) const {
    if (!draws_) return mean;
    constexpr std::int64_t kFewest = 4;
    if (draws_ < kFewest) return 1;
    const auto n = static_cast<double>(draws_);
    const double variance = std::max(0.0, (draw_squares_ - draw_sum_ * draw_sum_ / n) / (n - 1));
    return std::min(1.0, mean + student_95(n - 1) * std::sqrt(variance / n));
  }

  static constexpr std::size_t kBins = 4096;
  std::vector<std::int64_t> bins_ = std::vector<std::int64_t>(kBins, 0);
  std::int64_t rows_ = 0;
  double sum_ = 0, max_ = 0;
  std::int64_t draws_ = 0, open_rows_ = 0;  // draws that ended; rows of the one that did not
  double draw_sum_ = 0, draw_squares_ = 0, open_sum_ = 0;
};

}  // namespace lacuna
