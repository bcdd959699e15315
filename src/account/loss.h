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

// Mean and maximum are exact; the 95th percentile comes from bins of 1/4096 (relative below 1/64:
// square-root spacing).
class LossCounter {
 public:
  void add(double loss) {
    ++rows_;
    sum_ += loss;
    max_ = std::max(max_, loss);
    ++bins_[static_cast<std::size_t>(std::min(std::sqrt(loss), 1.0) * (kBins - 1) + 0.5)];
  }
  LossStats stats() const {
    LossStats s;
    s.rows = rows_;
    if (!rows_) return s;
    s.mean = sum_ / static_cast<double>(rows_);
    s.max = max_;
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
  static constexpr std::size_t kBins = 4096;
  std::vector<std::int64_t> bins_ = std::vector<std::int64_t>(kBins, 0);
  std::int64_t rows_ = 0;
  double sum_ = 0, max_ = 0;
};

}  // namespace lacuna
