// SPDX-License-Identifier: Apache-2.0
#include "cli/case/grad_problem.h"

#include <cmath>

#include "base/clock.h"
#include "engine/packed_tensor.h"

namespace lacuna::cli {
GradProblem::GradProblem(const Case& c, int batch) : case_(c), problem_(c, batch) {
  d_out_.resize(static_cast<std::size_t>(c.nq * c.hq * c.value_dim()));
  fill_normal(d_out_.data(), Dtype::f32, static_cast<std::int64_t>(d_out_.size()),
              c.seed * 1000003 + static_cast<std::uint64_t>(batch) * 7 + 6);
}

Result<op::AttendGrad::Args> GradProblem::args(Features have, Precision precision, ParallelFor& threads) {
  const Case& c = case_;
  const PackFormat format = choose_format(have, c.kv, precision);
  (void)problem_.args(have, format, threads);  // the first touch of fresh pages is nobody's packing
  forward_ = problem_.args(have, format, threads);
  kernel_ = pick(kernel::attend_list, forward_, have, threads.workers());
  if (!kernel_) return unsupported("no kernel of op attend takes the forward of this case");
  (void)forward(threads);

  op::AttendGrad::Args a;
  a.forward = forward_;
  a.forward.precision = c.precision;
  const double start = now();
  invert(a.forward.runs, inverse_);
  invert_seconds_ = now() - start;
  a.inverse = inverse_.view;
  const std::int64_t dv = c.value_dim();
  a.d_out = d_out_.data();
  a.d_out_head = dv;
  a.d_out_row = c.hq * dv;
  d_q.assign(static_cast<std::size_t>(c.nq * c.hq * c.d), NAN);
  d_k.assign(static_cast<std::size_t>(c.nkv * c.hkv * c.d), NAN);
  d_v.assign(static_cast<std::size_t>(c.nkv * c.hkv * dv), NAN);
  a.d_q = d_q.data();
  a.d_q_head = c.d;
  a.d_q_row = c.hq * c.d;
  a.d_k = d_k.data();
  a.d_k_head = c.d;
  a.d_k_cell = c.hkv * c.d;
  a.d_v = d_v.data();
  a.d_v_head = dv;
  a.d_v_cell = c.hkv * dv;
  return a;
}

double GradProblem::forward(ParallelFor& threads) {
  const double start = now();
  run_kernel(*kernel_, forward_, threads, space_);
  return now() - start;
}

}  // namespace lacuna::cli
