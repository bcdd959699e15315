// SPDX-License-Identifier: Apache-2.0
// Times ops int4_scores and int8_scores, and the writing of the side data that they read.
#include "cli/bench/measured.h"

#include <algorithm>
#include <type_traits>

#include "base/buffer.h"
#include "cli/bench/timing.h"
#include "engine/side.h"

namespace lacuna::cli {
namespace {

// Scores of every query and cell from side data in bits. Kernels of whole numbers do `at_once` products where the
// machine's best in floating point do one.
template <class Op>
Result<Measured> bench_side_scores(const Case& c, const kernel::KernelList<Op>& list, int rounds, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  const AttendProblem problem(c, 0);
  constexpr bool kBytes = std::is_same_v<Op, op::Int8Scores>;
  SideSpec spec;
  (kBytes ? spec.int8 : spec.int4) = true;
  SideStore side;
  side.open(spec, c.kv, c.nkv, static_cast<int>(c.hkv), static_cast<int>(c.d));
  const Tensor raw = token_major(const_cast<unsigned char*>(problem.k()), c.kv, 1, c.hkv, c.nkv, c.d);
  op::SideWrite::Args write = side_args(raw, side.view());
  write.n = c.nkv;
  write_side(have, write, pool.get());
  Measured o;
  o.pack = seconds_of([&] { write_side(have, write, pool.get()); });
  o.prepared = "making all side data";

  typename Op::Args a;
  a.hq = static_cast<std::int32_t>(c.hq);
  a.hkv = static_cast<std::int32_t>(c.hkv);
  a.dk = static_cast<std::int32_t>(c.d);
  a.n_rows = static_cast<std::int32_t>(c.nq);
  a.n_cells = c.nkv;
  a.q = problem.q();
  a.q_head = c.d;
  a.q_row = c.hq * c.d;
  if constexpr (kBytes) a.keys = side.view().int8;
  else a.keys = side.view().int4;
  a.score_row = tiles_of(c.nkv) * kTileKeys + 16;  // rows that share no cache set, as estimators have them
  a.score_head = c.nq * a.score_row;
  const auto n_scores = static_cast<std::size_t>(c.hq * a.score_head);
  Buffer scores;
  a.score = scores.grow_as<float>(n_scores);
  std::fill_n(a.score, n_scores, 0.0f);
  const auto picked = pick_or_say(list, a, have, pool->workers(), c);
  if (!picked.ok()) return picked.error();
  const auto* k = picked.value();
  Workspace space;
  const std::vector<double> times = seconds_of_each(rounds, 1.5, [&] { run_kernel(*k, a, *pool, space); });
  o.kernel = k->name;
  o.ours = spread(times);
  o.runs = static_cast<int>(times.size());
  const double flops = 2.0 * static_cast<double>(c.hq * c.nq * c.nkv * c.d);
  o.gflops = flops / o.ours.median * 1e-9;
  const std::string& name = o.kernel;
  const double at_once = name == "cpu.amx" ? 2 : name == "cpu.avx512vnni" ? 4 : 1;
  const double bytes = static_cast<double>(side.bytes().sum()) + 4.0 * static_cast<double>(n_scores);
  o.terms = roofline.of(name == "cpu.avx512vnni" ? "cpu.avx512" : o.kernel, have, {flops / at_once, 0, bytes}, *pool);
  return o;
}

}  // namespace

Result<Measured> bench_int4(const Case& c, int rounds, Roofline& roofline) {
  return bench_side_scores(c, kernel::int4_scores_list, rounds, roofline);
}

Result<Measured> bench_int8(const Case& c, int rounds, Roofline& roofline) {
  return bench_side_scores(c, kernel::int8_scores_list, rounds, roofline);
}

}  // namespace lacuna::cli
