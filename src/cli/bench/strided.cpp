// SPDX-License-Identifier: Apache-2.0
// Times op strided_scores.
#include "cli/bench/measured.h"

#include <algorithm>

#include "base/buffer.h"
#include "cli/bench/timing.h"

namespace lacuna::cli {

// strided_scores: FLOPs count the squares a causal estimate reads.
Result<Measured> bench_strided(const Case& c, int rounds, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  AttendProblem problem(c, 0);
  const PackFormat format = packed_for(kernel::strided_scores_list, have, c);
  if (format == PackFormat::none) return unsupported("strided_scores reads packed keys, which need AVX2");
  (void)problem.args(have, format, *pool);
  op::StridedScores::Args a = strided_args(c, problem.args(have, format, *pool));
  a.score_row = a.n_cols() / 16 * 16 + 16;  // rows that share no cache set, as estimators have them
  const auto n_scores = static_cast<std::size_t>(a.hq * a.m_rows() * a.score_row);
  Buffer scores;
  a.score = scores.grow_as<float>(n_scores);
  std::fill_n(a.score, n_scores, 0.0f);
  const auto picked = pick_or_say(kernel::strided_scores_list, a, have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  Workspace space;
  const std::vector<double> times = seconds_of_each(rounds, 1.5, [&] { run_kernel(*k, a, *pool, space); });
  double squares = 0;
  for (std::int64_t m = 0; m < a.m_rows(); ++m) squares += static_cast<double>(a.causal_end(m));
  Measured o;
  o.kernel = k->name;
  o.ours = spread(times);
  o.runs = static_cast<int>(times.size());
  o.pack = problem.pack_seconds();
  const double flops = 2 * squares * static_cast<double>(a.hq) * a.stride * a.dk;
  o.gflops = flops / o.ours.median * 1e-9;
  const double bytes = static_cast<double>(c.nkv * c.hkv * padded_dim(c.d)) * static_cast<double>(pack_element_bytes(format)) +
                       4.0 * static_cast<double>(n_scores);
  o.terms = roofline.of(o.kernel, have, {flops, 0, bytes}, *pool);
  return o;
}

}  // namespace lacuna::cli
