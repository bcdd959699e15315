// SPDX-License-Identifier: Apache-2.0
// Times op strided_scores.
#include "cli/bench/measured.h"

#include <algorithm>

#include "base/buffer.h"
#include "base/clock.h"
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
  const op::Attend::Args packed = problem.args(have, format, *pool);
  op::StridedScores::Args a;
  a.stride = static_cast<std::int32_t>(c.stride);
  a.hq = packed.hq;
  a.hkv = packed.hkv;
  a.dk = packed.dk;
  a.n_rows = packed.n_rows;
  a.n_keys = c.nkv;
  a.q = packed.q;
  a.q_head = packed.q_head;
  a.q_row = packed.q_row;
  a.packed_k = packed.packed_k;
  a.score_row = a.n_cols() / 16 * 16 + 16;  // rows that share no cache set, as estimators have them
  a.first_key_of_row0 = c.nkv - c.nq;
  const auto n_scores = static_cast<std::size_t>(a.hq * a.m_rows() * a.score_row);
  Buffer scores;
  a.score = scores.grow_as<float>(n_scores);
  std::fill_n(a.score, n_scores, 0.0f);
  const auto picked = pick_or_say(kernel::strided_scores_list, a, have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  Workspace space;
  const auto ours = [&] {
    const double start = now();
    run_kernel(*k, a, *pool, space);
    return now() - start;
  };
  ours();
  const int n = rounds > 0 ? rounds : repeats(ours(), 1.5);
  std::vector<double> times;
  for (int i = 0; i < n; ++i) times.push_back(ours());
  double squares = 0;
  for (std::int64_t m = 0; m < a.m_rows(); ++m) squares += static_cast<double>(a.causal_end(m));
  Measured o;
  o.kernel = k->name;
  o.ours = spread(times);
  o.runs = n;
  o.pack = problem.pack_seconds();
  const double flops = 2 * squares * static_cast<double>(a.hq) * a.stride * a.dk;
  o.gflops = flops / o.ours.median * 1e-9;
  const double bytes = static_cast<double>(c.nkv * c.hkv * padded_dim(c.d)) * static_cast<double>(pack_element_bytes(format)) +
                       4.0 * static_cast<double>(n_scores);
  o.terms = roofline.of(o.kernel, have, {flops, 0, bytes}, *pool);
  return o;
}

}  // namespace lacuna::cli
