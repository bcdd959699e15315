// SPDX-License-Identifier: Apache-2.0
// By which factor two series of times differ, and how sure that is.
//
//   ratio      the median of now_i / then_j over all pairs (Hodges and Lehmann 1963, on a logarithmic scale)
//   low, high  ratios so far in from both ends that rounds which differ by a factor alone would have theirs outside in
//              5 of 100 cases: the interval that belongs to the rank test of Mann and Whitney (1947)
//
// Nothing is assumed of how rounds scatter, only that they do so independently, and in both series alike.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace lacuna::cli {

enum class Verdict { faster, slower, noise };

// Of each series: fewer rounds have no interval (3 against 3 lie apart by chance in 10 of 100 cases).
constexpr std::size_t kFewestRounds = 4;
constexpr std::size_t kMostRounds = 2000;  // more would take long: all pairs are looked at

// Closer than this is noise however many rounds agree. Rounds of one process share what a process has by luck (pages,
// clock, neighbours): medians of the same program in three processes were up to 1.10 apart (docs/bench.md).
constexpr double kBetweenProcesses = 0.10;

struct Ratio {
  double ratio = 1, low = 1, high = 1;
  Verdict verdict = Verdict::noise;
};

// At least kFewestRounds each, all above 0.
Ratio ratio_of(const std::vector<double>& now, const std::vector<double>& then);
// "faster", "SLOWER", "within noise"
std::string_view words_of(Verdict verdict);

}  // namespace lacuna::cli
