// SPDX-License-Identifier: Apache-2.0
// The roofline of a timed call: what its products, its softmax weights and its memory would take alone, each at the best speed
// that this machine showed in the same run with the same threads. The largest is the wall; a kernel that overlaps nothing
// takes their sum.
#pragma once

#include <map>
#include <string>

#include "base/buffer.h"
#include "base/machine.h"
#include "lacuna/parallel.h"
#include "op/attend.h"

namespace lacuna {

struct Work {
  double flops = 0;
  double weights = 0;  // softmax weights
  double bytes = 0;    // that must be moved from or to memory at least once
};

struct Terms {
  bool known = false;  // false: a kernel nothing is known about
  double products = 0, weights = 0, memory = 0;  // seconds
};

// Bytes that a call must move: q and out, and of K and V each cell that some list of a KV head names, packed tiles whole.
double bytes_moved(const op::Attend::Args& call);

class Roofline {
 public:
  // Measures what was not measured yet (half a second). `kernel` is its name. Throws std::bad_alloc.
  Terms of(const std::string& kernel, Features have, const Work& work, ParallelFor& threads);

 private:
  struct Speed {
    double flops = 0, weights = 0, bytes = 0;  // per second, of all threads together
  };
  std::map<std::string, Speed> speeds_;  // by unit and number of threads
  Buffer memory_;
};

}  // namespace lacuna
