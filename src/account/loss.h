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
//
// A DRAW is what end_draw() closes: a row with all its heads, taken by chance from rows that count alike. `sure`: nothing was
// left to chance, as where the row stands for itself or its call left nothing out. The bound of the mean is that of
// Howard et al. (arXiv:1810.08240) and Waudby-Smith and Ramdas (arXiv:2010.09686) for means of numbers in 0..1 that may depend
// on all that came before, at a fixed bet b:
//   sum of true means <= sum x + (ln(1 / 0.05) + (-ln(1 - b) - b) sum (x - mean of the draws before)^2) / b
// with 95 % probability for all numbers of draws at once. So it may be watched, and acted on, while a run goes on.
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
  void end_draw(bool sure = false) {
    if (!open_rows_) return;
    const double x = std::min(1.0, open_sum_ / static_cast<double>(open_rows_));
    if (!sure) {
      const double before = sampled_ ? sampled_sum_ / static_cast<double>(sampled_) : 0.0;
      squares_ += (x - before) * (x - before);
      sampled_sum_ += x;
      ++sampled_;
    }
    ++draws_;
    draw_sum_ += x;
    open_rows_ = 0;
    open_sum_ = 0;
  }
  std::int64_t draws() const { return draws_; }
  std::int64_t sampled() const { return sampled_; }
  // The least that the true sum over the draws is known to stay under, `sampling`: if one more draw is sampled, or was.
  double at_most(bool sampling) const {
    return draw_sum_ + (sampling || sampled_ ? (kLogChance + kSquares * squares_) / kBet : 0.0);
  }
  double sum() const { return draw_sum_; }
  // Mean squared deviation of the sampled draws and one more, of `guess`.
  double variance(double guess) const { return (squares_ + guess) / static_cast<double>(sampled_ + 1); }
  LossStats stats() const {
    LossStats s;
    s.rows = rows_;
    if (!rows_) return s;
    s.mean = sum_ / static_cast<double>(rows_);
    s.max = max_;
    s.upper = sampled_ ? std::clamp(at_most(false) / static_cast<double>(draws_), s.mean, 1.0) : s.mean;
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
  // A large bet suits draws that scatter little, as rows with all their heads do.
  static constexpr double kBet = 0.75;
  static constexpr double kLogChance = 2.9957322735539909;   // ln(1 / 0.05)
  static constexpr double kSquares = 0.63629436111989057;    // -ln(1 - b) - b
  static constexpr std::size_t kBins = 4096;
  std::vector<std::int64_t> bins_ = std::vector<std::int64_t>(kBins, 0);
  std::int64_t rows_ = 0;
  double sum_ = 0, max_ = 0;
  std::int64_t draws_ = 0, sampled_ = 0, open_rows_ = 0;  // open: rows of the draw that did not end
  double draw_sum_ = 0, sampled_sum_ = 0, squares_ = 0, open_sum_ = 0;
};

}  // namespace lacuna
