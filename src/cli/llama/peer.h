// SPDX-License-Identifier: Apache-2.0
// A peer of bench: somebody else's attention on the same problem, in its own process memory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/case/case.h"
#include "cli/case/problem.h"

namespace lacuna::cli {

class Peer {
 public:
  virtual ~Peer() = default;
  virtual std::string name() const = 0;
  // One call over everything causal; seconds.
  virtual double run() = 0;
  // Its result as f32 [nq][hq][d], for a comparison of dense cases.
  virtual std::vector<float> result() = 0;
};

// Every build of llama.cpp's CPU attention that this machine runs, on this problem, or the reason
// why there is none. K and V lie as llama.cpp's cache has them; `problem` must outlive the call only.
Result<std::vector<std::unique_ptr<Peer>>> llama_peers(const Case& c, const AttendProblem& problem, int threads);

}  // namespace lacuna::cli
