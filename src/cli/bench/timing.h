// SPDX-License-Identifier: Apache-2.0
// What measurements of bench share: how long, how often, which kernel, in which packed form.
#pragma once

#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/case/case.h"
#include "cli/case/problem.h"
#include "engine/packed_tensor.h"
#include "engine/pick.h"

namespace lacuna::cli {

// Thread pools spin for a moment after their work; the other side's time begins when that is over.
void settle();

// What work() takes.
template <class Work>
double seconds_of(Work&& work) {
  const double start = now();
  work();
  return now() - start;
}

// How often, so that a case takes about `budget` seconds: often enough for --against, at most `most` times.
int repeats(double once, double budget, int most = 101);

// What each of `rounds` runs of work() takes, or of about `budget` seconds of them if rounds is 0, after one to warm up.
template <class Work>
std::vector<double> seconds_of_each(int rounds, double budget, Work&& work) {
  work();
  std::vector<double> times(static_cast<std::size_t>(rounds > 0 ? rounds : repeats(seconds_of(work), budget)));
  for (double& t : times) t = seconds_of(work);
  return times;
}

// The kernel for a call, or why none of them takes it.
template <class Op>
Result<const kernel::Kernel<Op>*> pick_or_say(const kernel::KernelList<Op>& list, const typename Op::Args& args, Features have,
                                              int workers, const Case& c) {
  std::vector<Refusal> refusals;
  if (const auto* k = pick(list, args, have, workers, c.kernel, &refusals)) return k;
  std::string text = "no kernel takes this case";
  for (const Refusal& r : refusals) text += fmt::format("; {}: {}", r.kernel, r.reason);
  return unsupported(text);
}

// The packed form that the case's kernel reads: the forced one's, or the machine's best.
template <class Op>
PackFormat packed_for(const kernel::KernelList<Op>& list, Features have, const Case& c) {
  for (const auto* k : list)
    if (c.kernel == k->name && k->pack != PackFormat::none) return format_for(*k, c.kv);
  return choose_format(have, c.kv, c.precision);
}

}  // namespace lacuna::cli
