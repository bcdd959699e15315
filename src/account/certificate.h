// SPDX-License-Identifier: Apache-2.0
// Certificate: a bound on the lost mass of a decoded row that is proved, not sampled (docs/account.md,
// docs/decisions/026).
//
// No key j that a row leaves out scores more than u[j] (engine/key_bounds.h), and the keys that it keeps have a mass of
// at least K. With L = sum over j of exp(u[j]) / K
//   lost mass <= L / (1 + L)
// which needs neither the scores of what is left out nor chance. Keys are counted by pages. Keeping a page takes its
// part out of L, so a limit on the lost mass is met by keeping those with the largest parts; K may stay as it is:
// keeping more only adds to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lacuna/report.h"

namespace lacuna {

// Some keys that a row leaves out together.
struct LeftOut {
  double most = 0;  // of their mass, as a multiple of what is kept: 0 .. infinity, or none (NaN), which bounds nothing
  std::int32_t page = 0;
};

// The lost mass of a row whose left-out parts are these: at most this, 0 .. 1. Rounded up.
double lost_at_most(std::span<const LeftOut> parts);
// Sorts the parts, largest first, and tells how many of the first must be kept so that the rest loses at most `limit`,
// 0 .. 1. All of them if a part has no bound: keys that are no numbers may have no mass to add to what is kept.
std::size_t largest_to_keep(std::vector<LeftOut>& parts, double limit);

// How far a score from f32 products of `dk` channels may be from the exact one, where |scale| sum_d |q_d k_d| <= size.
// Covers the sum over 2 dk products in any order, of which each rounding is at most 2^-24 of `size`, and what follows.
constexpr double score_error(int dk, double size) { return 0x1p-24 * (2 * dk + 32) * size; }
// The same of a logarithm of op exact_mass, whose header derives it.
constexpr double mass_error(int dk, double size, double softcap) {
  return score_error(dk, size) + 0x1p-15 + 0x1p-20 * softcap;
}

// What became of the bounds of a run.
class CertificateCount {
 public:
  explicit CertificateCount(double limit) { sum_.limit = limit; }
  void add(double bound);
  void pairs(double visible, double kept_for_it) { visible_ += visible, kept_for_it_ += kept_for_it; }
  void took(double seconds) { sum_.seconds += seconds; }
  CertificateReport report() const;

 private:
  CertificateReport sum_;  // mean, within: still sums
  double visible_ = 0, kept_for_it_ = 0;
};

}  // namespace lacuna
