// SPDX-License-Identifier: Apache-2.0
// An attend_grad case: the problem of an attend case, its forward, a gradient to start from, and room for the results,
// with the heads of a token side by side everywhere.
#pragma once

#include <vector>

#include "cli/case/problem.h"
#include "engine/lower.h"
#include "op/attend_grad.h"

namespace lacuna::cli {

class GradProblem {
 public:
  // Throws std::bad_alloc.
  GradProblem(const Case& c, int batch);

  // Runs forward by the best kernel for `precision` and gives the call for its gradients, which are full of NaN.
  Result<op::AttendGrad::Args> args(Features have, Precision precision, ParallelFor& threads);
  // Runs that forward once more; seconds.
  double forward(ParallelFor& threads);

  const char* forward_kernel() const { return kernel_->name; }
  AttendProblem& problem() { return problem_; }
  double invert_seconds() const { return invert_seconds_; }

  // dq, dk, dv of the last args().
  std::vector<float> d_q, d_k, d_v;

 private:
  const Case case_;
  AttendProblem problem_;
  op::Attend::Args forward_;
  const kernel::Kernel<op::Attend>* kernel_ = nullptr;
  Workspace space_;
  std::vector<float> d_out_;
  InvertedRuns inverse_;
  double invert_seconds_ = 0;
};

}  // namespace lacuna::cli
