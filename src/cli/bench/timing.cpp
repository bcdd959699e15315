// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/timing.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "cli/bench/measured.h"
#include "cli/bench/ratio.h"

namespace lacuna::cli {

Spread spread(const std::vector<double>& seconds) {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  return {n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]), sorted.front(), sorted.back(), seconds};
}

void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }

int repeats(double once, double budget, int most) {
  return std::clamp(static_cast<int>(budget / std::max(once, 1e-6)), static_cast<int>(kFewestRounds), most);
}

}  // namespace lacuna::cli
