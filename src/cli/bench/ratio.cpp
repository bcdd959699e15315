// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/ratio.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace lacuna::cli {

namespace {

// How many of the n x m ratios lie outside at each end: the largest k for which so few as k pairs in one order have at
// most 1 chance in 40.
std::size_t outside(std::size_t n, std::size_t m) {
  const std::size_t pairs = n * m;
  constexpr double kChance = 0.025;
  if (pairs > 400) {  // many: the number of pairs in order is nearly normal
    const double mean = 0.5 * static_cast<double>(pairs), sd = std::sqrt(static_cast<double>(pairs * (n + m + 1)) / 12);
    return static_cast<std::size_t>(std::floor(mean - 1.96 * sd - 0.5));
  }
  // Orders of n and m rounds by their pairs in order: the coefficients of prod (1 - x^(m+i)) / (1 - x^i), i = 1 .. n.
  std::vector<double> orders(pairs + 1, 0.0);
  orders[0] = 1;
  for (std::size_t i = 1; i <= n; ++i) {
    for (std::size_t u = pairs; u >= m + i; --u) orders[u] -= orders[u - m - i];
    for (std::size_t u = i; u <= pairs; ++u) orders[u] += orders[u - i];
  }
  double all = 0;
  for (const double o : orders) all += o;
  std::size_t k = 0;
  for (double seen = orders[0]; seen + orders[k + 1] <= kChance * all; ++k) seen += orders[k + 1];
  return k;
}

}  // namespace

Ratio ratio_of(const std::vector<double>& now, const std::vector<double>& then) {
  std::vector<double> ratios;
  for (const double a : now)
    for (const double b : then) ratios.push_back(a / b);
  std::sort(ratios.begin(), ratios.end());
  const std::size_t n = ratios.size();
  Ratio r;
  r.ratio = n % 2 ? ratios[n / 2] : 0.5 * (ratios[n / 2 - 1] + ratios[n / 2]);
  const std::size_t k = outside(now.size(), then.size());
  r.low = ratios[k];
  r.high = ratios[n - 1 - k];
  if (r.high < 1 && r.ratio < 1 - kBetweenProcesses) r.verdict = Verdict::faster;
  if (r.low > 1 && r.ratio > 1 + kBetweenProcesses) r.verdict = Verdict::slower;
  return r;
}

std::string_view words_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::faster: return "faster";
    case Verdict::slower: return "SLOWER";
    case Verdict::noise: break;
  }
  return "within noise";
}

}  // namespace lacuna::cli
