// SPDX-License-Identifier: Apache-2.0
// Times op attend_grad in turns with its forward.
#include "cli/bench/measured.h"

#include <memory>

#include "cli/bench/timing.h"
#include "cli/case/grad_problem.h"
#include "cli/common.h"

namespace lacuna::cli {

// attend_grad: FLOPs are those of the five products over attended pairs.
Result<Measured> bench_grad(const Case& c, int rounds, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  std::vector<std::unique_ptr<GradProblem>> problems;
  std::vector<op::AttendGrad::Args> calls;
  Measured o;
  double pairs = 0, allowed = 0;
  for (int batch = 0; batch < c.b; ++batch) {
    problems.push_back(std::make_unique<GradProblem>(c, batch));
    GradProblem& p = *problems.back();
    auto call = p.args(have, c.precision, *pool);
    if (!call.ok()) return call.error();
    calls.push_back(call.value());
    pairs += p.problem().attended_pairs();
    allowed += p.problem().allowed_pairs();
    o.pack += p.problem().pack_seconds();
    o.lower += p.problem().lower_seconds() + p.invert_seconds();
  }
  const auto picked = pick_or_say(kernel::attend_grad_list, calls[0], have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  o.kernel = k->name;
  o.forward = problems[0]->forward_kernel();
  o.density = allowed > 0 ? pairs / allowed : 1;
  Workspace space;
  const auto ours = [&] {
    return seconds_of([&] {
      for (const auto& a : calls) run_kernel(*k, a, *pool, space);
    });
  };
  const auto forward = [&] {
    double t = 0;
    for (auto& p : problems) t += p->forward(*pool);
    return t;
  };
  ours();
  const int n = rounds > 0 ? rounds : repeats(ours() + forward(), 3.0);
  std::vector<double> times, forward_times, ratios;
  Progress progress("bench " + o.kernel, n, "runs");
  for (int i = 0; i < n; ++i) {
    progress.update(i);
    settle();
    forward_times.push_back(forward());
    settle();
    times.push_back(ours());
    ratios.push_back(times.back() / forward_times.back());
  }
  o.runs = n;
  o.ours = spread(times);
  o.forward_times = spread(forward_times);
  o.ratio = spread(ratios).median;  // of neighbours in time, which a busy machine slows alike
  const double flops = 2 * pairs * static_cast<double>(3 * c.d + 2 * c.value_dim());
  o.gflops = flops / o.ours.median * 1e-9;
  // q, out, its gradient and dq; K, V and their gradients; all of them f32.
  const double bytes = 4.0 * static_cast<double>(c.b * (c.d + c.value_dim()) * (2 * c.nq * c.hq + 2 * c.nkv * c.hkv));
  o.terms = roofline.of(o.kernel, have, {flops, pairs, bytes}, *pool);
  return o;
}

}  // namespace lacuna::cli
