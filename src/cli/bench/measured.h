// SPDX-License-Identifier: Apache-2.0
// What the time of one case is, and how the ops of bench measure theirs: one function each, in the file of its name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/case/case.h"
#include "engine/roofline.h"

namespace lacuna::cli {

struct Spread {
  double median = 0, min = 0, max = 0;  // seconds
  std::vector<double> rounds;           // as they came
};

Spread spread(const std::vector<double>& seconds);

struct Measured {
  std::string kernel, peer, forward;
  const char* prepared = "packing all K and V";  // what `pack` is the time of
  Spread ours, theirs, forward_times;
  double ratio = 0;  // attend_grad's time / forward's
  double gflops = 0, density = 1, pack = 0, lower = 0, difference = -1;
  std::int64_t runs = 0;
  Terms terms;
  double dense = 0;  // seconds of the dense case of the same shape, if it came before
};

// rounds: as often as asked, 0: about three seconds' worth. Errors say which kernels refuse the case, and why.
Result<Measured> bench_attend(const Case& c, bool with_peer, int rounds, Roofline& roofline);
Result<Measured> bench_grad(const Case& c, int rounds, Roofline& roofline);
Result<Measured> bench_strided(const Case& c, int rounds, Roofline& roofline);
Result<Measured> bench_int4(const Case& c, int rounds, Roofline& roofline);
Result<Measured> bench_int8(const Case& c, int rounds, Roofline& roofline);
Result<Measured> bench_maxima(const Case& c, int rounds, Roofline& roofline);

}  // namespace lacuna::cli
