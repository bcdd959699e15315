// SPDX-License-Identifier: Apache-2.0
// Times op attend_maxima in turns with the dense attention whose log-sums it is told.
#include "cli/bench/measured.h"

#include <vector>

#include "cli/bench/timing.h"

namespace lacuna::cli {

// attend_maxima of blocks of `block` rows and keys.
Result<Measured> bench_maxima(const Case& c, int rounds, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  AttendProblem problem(c, 0);
  const PackFormat format = packed_for(kernel::attend_maxima_list, have, c);
  if (format == PackFormat::none) return unsupported("attend_maxima reads packed keys, which need AVX2");
  const op::Attend::Args dense = problem.args(have, format, *pool);
  const auto* forward = pick(kernel::attend_list, dense, have, pool->workers());
  op::AttendMaxima::Args a;
  a.hq = dense.hq;
  a.hkv = dense.hkv;
  a.dk = dense.dk;
  a.n_rows = dense.n_rows;
  a.n_keys = c.nkv;
  a.first_key = c.nkv - c.nq;
  a.q = dense.q;
  a.q_head = dense.q_head;
  a.q_row = dense.q_row;
  a.packed_k = dense.packed_k;
  a.scale = dense.scale;
  a.lse = dense.lse;
  a.block_q = a.block_k = static_cast<std::int32_t>(c.block);
  const auto blocks = static_cast<std::size_t>(a.hq * a.row_blocks() * a.key_blocks());
  std::vector<float> most(blocks), sums(blocks), of_keys(static_cast<std::size_t>(a.hq * a.n_keys));
  a.block_max = most.data();
  a.block_sum = sums.data();
  a.key_max = of_keys.data();
  const auto picked = pick_or_say(kernel::attend_maxima_list, a, have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  Workspace space;
  const auto timed = [&](const auto& kernel, const auto& args) {
    return seconds_of([&] { run_kernel(kernel, args, *pool, space); });
  };
  timed(*forward, dense);
  const int n = rounds > 0 ? rounds : repeats(timed(*k, a) + timed(*forward, dense), 3.0);
  std::vector<double> times, forward_times, ratios;
  for (int i = 0; i < n; ++i) {
    forward_times.push_back(timed(*forward, dense));
    times.push_back(timed(*k, a));
    ratios.push_back(times.back() / forward_times.back());
  }
  Measured o;
  o.kernel = k->name;
  o.forward = forward->name;
  o.runs = n;
  o.ours = spread(times);
  o.forward_times = spread(forward_times);
  o.ratio = spread(ratios).median;
  o.pack = problem.pack_seconds();
  const double pairs = problem.allowed_pairs(), flops = 2 * pairs * static_cast<double>(c.d);
  o.gflops = flops / o.ours.median * 1e-9;
  const double bytes = static_cast<double>(c.nkv * c.hkv * padded_dim(c.d)) * static_cast<double>(pack_element_bytes(format)) +
                       4.0 * static_cast<double>(2 * blocks + of_keys.size());
  o.terms = roofline.of(o.kernel, have, {flops, pairs, bytes}, *pool);
  return o;
}

}  // namespace lacuna::cli
