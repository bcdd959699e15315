// SPDX-License-Identifier: Apache-2.0
// Times op attend, K and V packed as a host keeps them and the selection lowered before; with a peer, both run in turns.
#include "cli/bench/measured.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "cli/bench/timing.h"
#include "cli/common.h"
#include "cli/llama/peer.h"

namespace lacuna::cli {

Result<Measured> bench_attend(const Case& c, bool with_peer, int rounds, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  std::vector<std::unique_ptr<AttendProblem>> problems;
  std::vector<op::Attend::Args> calls;
  Measured o;
  double pairs = 0, allowed = 0;
  PackFormat format = choose_format(have, both_in(c.kv, c.v_type()), c.precision, find_attend(c.kernel));
  for (int batch = 0; batch < c.b; ++batch) {
    problems.push_back(std::make_unique<AttendProblem>(c, batch));
    AttendProblem& p = *problems.back();
    if (taken_in_place(p.args(have, PackFormat::none, *pool), have, pool->workers(), find_attend(c.kernel))) format = PackFormat::none;
    (void)p.args(have, format, *pool);  // the first touch of fresh pages is nobody's packing
    calls.push_back(p.args(have, format, *pool));
    pairs += p.attended_pairs();
    allowed += p.allowed_pairs();
    o.pack += p.pack_seconds();
    o.lower += p.lower_seconds();
  }
  const auto picked = pick_or_say(kernel::attend_list, calls[0], have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  o.kernel = k->name;
  o.density = allowed > 0 ? pairs / allowed : 1;

  Workspace space;
  const auto ours = [&] {
    return seconds_of([&] {
      for (const auto& a : calls) run_kernel(*k, a, *pool, space);
    });
  };
  // Of several builds of the peer the quickest one is meant; two tries each, after one to warm up.
  std::unique_ptr<Peer> peer;
  if (with_peer) {
    auto all = llama_peers(c, *problems[0], pool->workers());
    if (!all.ok()) return all.error();
    double best = 0;
    for (auto& candidate : all.value()) {
      settle();
      candidate->run();
      const double t = std::min(candidate->run(), candidate->run());
      if (!peer || t < best) {
        best = t;
        peer = std::move(candidate);
      }
    }
    o.peer = peer->name();
  }
  settle();
  ours();
  const double once = ours() + (peer ? peer->run() * static_cast<double>(c.b) : 0);
  const int n = rounds > 0 ? rounds : repeats(once, 3.0);
  std::vector<double> our_times, their_times;
  Progress progress("bench " + o.kernel, n, "runs");
  for (int i = 0; i < n; ++i) {
    if (once > 0.2) progress.update(i);
    if (peer) settle();
    else pool->each(pool->workers(), [](int, int) {});  // as between the calls of a token: awake
    our_times.push_back(ours());
    if (peer) {
      settle();
      double t = 0;
      for (int batch = 0; batch < c.b; ++batch) t += peer->run();
      their_times.push_back(t);
    }
  }
  o.runs = n;
  o.ours = spread(our_times);
  if (peer) o.theirs = spread(their_times);
  if (peer && o.density >= 1) {  // both computed the same: say how far apart they are
    const std::vector<float> theirs = peer->result();
    o.difference = 0;
    for (std::size_t i = 0; i < theirs.size(); ++i)
      o.difference = std::max(o.difference, std::fabs(static_cast<double>(theirs[i]) - problems[0]->out()[i]));
  }
  const double flops = 2 * pairs * static_cast<double>(c.d + c.value_dim());
  o.gflops = flops / o.ours.median * 1e-9;
  double bytes = 0;
  for (const auto& a : calls) bytes += bytes_moved(a);
  o.terms = roofline.of(o.kernel, have, {flops, pairs, bytes}, *pool);
  return o;
}

}  // namespace lacuna::cli
