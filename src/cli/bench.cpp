// SPDX-License-Identifier: Apache-2.0
// lacuna bench: the time of one attention call, K and V packed as a host keeps them, the selection
// already lowered. What packing and lowering cost stands beside it. With a peer, both run in turns. An attend_grad case
// is timed in turns with its forward. A choose case is a whole method at work, in turns with dense (cli/choosing.h).
// Runs are kept, compared and shown: cli/saved_options.h.
#include "cli/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <optional>
#include <thread>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/buffer.h"
#include "base/clock.h"
#include "cli/bench_against.h"
#include "cli/bench_saved.h"
#include "cli/case_options.h"
#include "cli/choosing.h"
#include "cli/grad_problem.h"
#include "cli/ratio.h"
#include "cli/saved_options.h"
#include "cli/verbs.h"
#include "engine/packed_tensor.h"
#include "engine/roofline.h"
#include "engine/side.h"

namespace lacuna::cli {
namespace {

struct Spread {
  double median = 0, min = 0, max = 0;  // seconds
  std::vector<double> rounds;           // as they came
};

Spread spread(const std::vector<double>& seconds) {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t n = sorted.size();
  return {n % 2 ? sorted[n / 2] : 0.5 * (sorted[n / 2 - 1] + sorted[n / 2]), sorted.front(), sorted.back(), seconds};
}

// Thread pools spin for a moment after their work; the other side's time begins when that is over.
void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(3)); }

struct Outcome {
  std::string kernel, peer, forward;
  const char* prepared = "packing all K and V";  // what `pack` is the time of
  Spread ours, theirs, forward_times;
  double ratio = 0;  // attend_grad's time / forward's
  double gflops = 0, density = 1, pack = 0, lower = 0, difference = -1;
  std::int64_t runs = 0;
  Terms terms;
  double dense = 0;  // seconds of the dense case of the same shape, if it came before
};

// How often, so that a case takes about `budget` seconds: often enough for --against, at most `most` times.
int repeats(double once, double budget, int most) {
  return std::clamp(static_cast<int>(budget / std::max(once, 1e-6)), static_cast<int>(kFewestRounds), most);
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

Result<Outcome> bench_attend(const Case& c, bool with_peer, int asked, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  std::vector<std::unique_ptr<AttendProblem>> problems;
  std::vector<op::Attend::Args> calls;
  Outcome o;
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
    const double start = now();
    for (const auto& a : calls) run_kernel(*k, a, *pool, space);
    return now() - start;
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
  const int n = asked > 0 ? asked : repeats(once, 3.0, 101);
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

// attend_grad: FLOPs are those of the five products over attended pairs.
Result<Outcome> bench_grad(const Case& c, int asked, Roofline& roofline) {
  const auto pool = make_thread_pool(c.threads);
  const Features have = features_of(c);
  std::vector<std::unique_ptr<GradProblem>> problems;
  std::vector<op::AttendGrad::Args> calls;
  Outcome o;
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
    const double start = now();
    for (const auto& a : calls) run_kernel(*k, a, *pool, space);
    return now() - start;
  };
  const auto forward = [&] {
    double t = 0;
    for (auto& p : problems) t += p->forward(*pool);
    return t;
  };
  ours();
  const int n = asked > 0 ? asked : repeats(ours() + forward(), 3.0, 101);
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

// The packed form that the case's kernel reads: the forced one's, or the machine's best.
template <class Op>
PackFormat packed_for(const kernel::KernelList<Op>& list, Features have, const Case& c) {
  for (const auto* k : list)
    if (c.kernel == k->name && k->pack != PackFormat::none) return format_for(*k, c.kv);
  return choose_format(have, c.kv, c.precision);
}

// strided_scores: FLOPs count the squares a causal estimate reads.
Result<Outcome> bench_strided(const Case& c, int asked, Roofline& roofline) {
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
  const int n = asked > 0 ? asked : repeats(ours(), 1.5, 101);
  std::vector<double> times;
  for (int i = 0; i < n; ++i) times.push_back(ours());
  double squares = 0;
  for (std::int64_t m = 0; m < a.m_rows(); ++m) squares += static_cast<double>(a.causal_end(m));
  Outcome o;
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

// Scores of every query and cell from side data in bits. Kernels of whole numbers do `at_once` products where the
// machine's best in floating point do one.
template <class Op>
Result<Outcome> bench_side_scores(const Case& c, const kernel::KernelList<Op>& list, int asked, Roofline& roofline) {
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
  const double start = now();
  write_side(have, write, pool.get());
  Outcome o;
  o.pack = now() - start;
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
  const auto ours = [&] {
    const double begin = now();
    run_kernel(*k, a, *pool, space);
    return now() - begin;
  };
  ours();
  const int n = asked > 0 ? asked : repeats(ours(), 1.5, 101);
  std::vector<double> times;
  for (int i = 0; i < n; ++i) times.push_back(ours());
  o.kernel = k->name;
  o.ours = spread(times);
  o.runs = n;
  const double flops = 2.0 * static_cast<double>(c.hq * c.nq * c.nkv * c.d);
  o.gflops = flops / o.ours.median * 1e-9;
  const std::string& name = o.kernel;
  const double at_once = name == "cpu.amx" ? 2 : name == "cpu.avx512vnni" ? 4 : 1;
  const double bytes = static_cast<double>(side.bytes().sum()) + 4.0 * static_cast<double>(n_scores);
  o.terms = roofline.of(name == "cpu.avx512vnni" ? "cpu.avx512" : o.kernel, have, {flops / at_once, 0, bytes}, *pool);
  return o;
}

// attend_maxima of blocks of `block` rows and keys, in turns with the dense attention whose log-sums it is told.
Result<Outcome> bench_maxima(const Case& c, int asked, Roofline& roofline) {
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
    const double start = now();
    run_kernel(kernel, args, *pool, space);
    return now() - start;
  };
  timed(*forward, dense);
  const int n = asked > 0 ? asked : repeats(timed(*k, a) + timed(*forward, dense), 3.0, 101);
  std::vector<double> times, forward_times, ratios;
  for (int i = 0; i < n; ++i) {
    forward_times.push_back(timed(*forward, dense));
    times.push_back(timed(*k, a));
    ratios.push_back(times.back() / forward_times.back());
  }
  Outcome o;
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

bool is_dense(const Case& c) { return c.layout == Layout::closed && c.keep >= 1 && c.window == 0; }

// The dense case of the same shape.
Case unselected(Case c) {
  const Case plain;
  c.layout = plain.layout;
  c.keep = plain.keep;
  c.block = plain.block;
  c.window = plain.window;
  c.sink = plain.sink;
  return c;
}

std::string ms(double seconds) {
  const double x = seconds * 1e3;
  return x < 10 ? fmt::format("{:.3f}", x) : x < 1000 ? fmt::format("{:.1f}", x) : fmt::format("{:.0f}", x);
}

void print(const Case& c, const Outcome& o) {
  fmt::print("{}\n", c.line());
  fmt::print("  {} {:>9} ms  ({} .. {})  {:.1f} GFLOP/s, density {:.3f}\n", bold(fmt::format("{:<21}", o.kernel)), ms(o.ours.median), ms(o.ours.min),
             ms(o.ours.max), o.gflops, o.density);
  if (!o.peer.empty())
    fmt::print("  {:<21} {:>9} ms  ({} .. {})  ratio {}\n", o.peer, ms(o.theirs.median), ms(o.theirs.min), ms(o.theirs.max),
               bold(fmt::format("{:.2f}", o.theirs.median / o.ours.median)));
  if (!o.forward.empty())
    fmt::print("  {:<21} {:>9} ms  ({} .. {})  ratio {}\n", o.forward + " forward", ms(o.forward_times.median),
               ms(o.forward_times.min), ms(o.forward_times.max), bold(fmt::format("{:.2f}", o.ratio)));
  if (o.dense > 0)
    fmt::print("  dense takes {:.2f} times as long; this takes {} times dense's time x density\n", o.dense / o.ours.median,
               bold(fmt::format("{:.2f}", o.ours.median / (o.dense * o.density))));
  if (o.terms.known) {
    const auto term = [&](const char* name, double t) { return fmt::format("{} {} ms ({:.0f} %)", name, ms(t), 100 * t / o.ours.median); };
    fmt::print("  roofline: {}, {}, {}\n", term("products", o.terms.products), term("weights", o.terms.weights), term("memory", o.terms.memory));
  }
  std::string aside = fmt::format("{} takes {} ms, lowering {} ms", o.prepared, ms(o.pack), ms(o.lower));
  if (!o.peer.empty()) aside += fmt::format("; with packing: ratio {:.2f}", o.theirs.median / (o.ours.median + o.pack));
  fmt::print("  {}\n", dim(aside));
  if (o.difference >= 0) fmt::print("  {}\n", dim(fmt::format("greatest difference of the two results: {:.1e}", o.difference)));
  std::fflush(stdout);
}

nlohmann::ordered_json as_json(const Case& c, const Outcome& o) {
  nlohmann::ordered_json j = {{"case", c.line()},
                              {"kernel", o.kernel},
                              {"ms", {{"median", o.ours.median * 1e3}, {"min", o.ours.min * 1e3}, {"max", o.ours.max * 1e3}}},
                              {"gflops", o.gflops},
                              {"density", o.density},
                              {"runs", o.runs},
                              {"pack_ms", o.pack * 1e3},
                              {"lower_ms", o.lower * 1e3}};
  if (!o.forward.empty()) {
    j["forward"] = {{"kernel", o.forward},
                    {"ms", o.forward_times.median * 1e3},
                    {"ms_min", o.forward_times.min * 1e3},
                    {"ms_max", o.forward_times.max * 1e3}};
    j["ratio_to_forward"] = o.ratio;
  }
  if (o.dense > 0) j["dense_ms"] = o.dense * 1e3;
  if (o.terms.known)
    j["roofline_ms"] = {{"products", o.terms.products * 1e3}, {"weights", o.terms.weights * 1e3}, {"memory", o.terms.memory * 1e3}};
  if (o.peer.empty()) return j;
  j["peer"] = {{"name", o.peer},
               {"ms", o.theirs.median * 1e3},
               {"ms_min", o.theirs.min * 1e3},
               {"ms_max", o.theirs.max * 1e3}};
  if (o.difference >= 0) j["peer"]["max_difference"] = o.difference;
  j["ratio"] = o.theirs.median / o.ours.median;
  j["ratio_with_packing"] = o.theirs.median / (o.ours.median + o.pack);
  return j;
}

// A choose case has figures of its own.
void print(const Case& c, const Choosing& o) {
  fmt::print("{}\n", c.line());
  const Spread share = spread(o.share), dense = spread(o.dense);
  fmt::print("  {} {:>9} %   ({:.1f} .. {:.1f})  of dense attention, {} ms; density {:.3f}\n", bold(fmt::format("{:<21}", "choosing takes")),
             bold(fmt::format("{:.1f}", 100 * share.median)), 100 * share.min, 100 * share.max, ms(dense.median), o.density);
  fmt::print("  {}\n", dim(fmt::format("estimate {} ms, budget {} ms, side data {} ms; attend {} ms by {}; {} rounds", ms(spread(o.estimate).median),
                                       ms(spread(o.budget).median), ms(spread(o.side).median), ms(spread(o.attend).median), o.kernel,
                                       o.share.size())));
  if (!o.note.empty()) fmt::print("  {}\n", dim(o.note));
  std::fflush(stdout);
}

nlohmann::ordered_json as_json(const Case& c, const Choosing& o) {
  const auto times = [](const std::vector<double>& seconds) {
    const Spread s = spread(seconds);
    return nlohmann::ordered_json{{"median", s.median * 1e3}, {"min", s.min * 1e3}, {"max", s.max * 1e3}};
  };
  const Spread share = spread(o.share);
  return {{"case", c.line()},
          {"kernel", o.kernel},
          {"share_of_dense", {{"median", share.median}, {"min", share.min}, {"max", share.max}}},
          {"estimate_ms", times(o.estimate)},
          {"budget_ms", times(o.budget)},
          {"side_ms", times(o.side)},
          {"attend_ms", times(o.attend)},
          {"dense_ms", times(o.dense)},
          {"density", o.density},
          {"attended_pairs", o.attended_pairs},
          {"rounds", o.share.size()},
          {"note", o.note}};
}

// What two runs are compared by.
CaseRounds rounds_of(const Case& c, const Outcome& o) {
  CaseRounds r{c.line(), o.kernel, "ms", o.ours.rounds};
  for (double& x : r.rounds) x *= 1e3;
  return r;
}
CaseRounds rounds_of(const Case& c, const Choosing& o) { return {c.line(), o.kernel, "share_of_dense", o.share}; }

// Prints and keeps what a case took.
struct Record {
  bool speak;
  Progress& progress;
  nlohmann::ordered_json& cases;
  SavedRun run;
  std::optional<Against> against;

  template <class Measured>
  Status add(const Case& c, const Result<Measured>& outcome) {
    progress.clear();
    if (!outcome.ok()) return outcome.error();
    if (speak) print(c, outcome.value());
    cases.push_back(as_json(c, outcome.value()));
    run.cases.push_back(rounds_of(c, outcome.value()));
    if (!against) return {};
    const std::string words = against->add(run.cases.back());
    if (speak) fmt::print("  {}\n", words);
    if (speak) std::fflush(stdout);
    cases.back()["against"] = against->last();
    return {};
  }
};

}  // namespace

int verb_bench(int argc, char** argv) {
  CLI::App app("Times op attend, its gradients, what estimates need and what choosing costs, alone or against a peer.", "bench");
  CaseOptions options;
  options.add_to(app);
  std::string peer;
  int runs = 0;
  app.add_option("--peer", peer, "also time llama.cpp's own attention (the quickest of its builds here): llama")
      ->check(CLI::IsMember({"llama"}));
  app.add_option("-r,--runs", runs, "timed runs per case (default: about three seconds' worth)")->check(CLI::Range(1, 100000));
  SavedOptions saved;
  saved.add_to(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  for (const std::string& why : {options.json.check(), saved.check(options, runs)})
    if (!why.empty()) return bad_input(why);
  if (!saved.history.empty()) return saved.show_history();
  auto against = saved.read_against();
  if (!against.ok()) return bad_input(against.error().what);
  auto cases = options.read("perf_");
  if (!cases.ok()) return bad_input(cases.error().what);

  const bool speak = !options.json.on_stdout();
  if (speak && !peer.empty())
    fmt::print("{}\n\n", dim("Compared is attention alone: the host keeps K and V packed, llama.cpp keeps its own cache.\n"
                             "GFLOP/s count attended pairs; ratio = llama.cpp's time / ours; it always attends to all.\n"
                             "Roofline: what products, softmax weights and moving q, K, V and out would take alone, at the best\n"
                             "speed seen in this run; in brackets, the share of our time."));
  nlohmann::ordered_json document = {{"machine", describe(detect_features())}, {"cases", nlohmann::ordered_json::array()}};
  Progress progress("bench", static_cast<long long>(cases.value().size()), "cases");
  Record record{speak, progress, document["cases"], new_run(), std::move(against.value())};
  if (record.against && speak) fmt::print("{}\n", record.against->heading());
  long long done = 0;
  Roofline roofline;
  std::map<std::string, double> dense;  // seconds, by the line without its selection
  for (const Case& c : cases.value()) {
    progress.update(done++);
    try {
      const bool with_peer = !peer.empty() && c.op == "attend";
      Status done_well;
      if (c.op == "attend") {
        auto outcome = bench_attend(c, with_peer, runs, roofline);
        if (outcome.ok()) {
          double& whole = dense[unselected(c).line()];
          if (is_dense(c)) whole = outcome.value().ours.median;
          else outcome.value().dense = whole;
        }
        done_well = record.add(c, outcome);
      } else if (c.op == "attend_grad") {
        done_well = record.add(c, bench_grad(c, runs, roofline));
      } else if (c.op == "int4_scores") {
        done_well = record.add(c, bench_side_scores(c, kernel::int4_scores_list, runs, roofline));
      } else if (c.op == "int8_scores") {
        done_well = record.add(c, bench_side_scores(c, kernel::int8_scores_list, runs, roofline));
      } else if (c.op == "attend_maxima") {
        done_well = record.add(c, bench_maxima(c, runs, roofline));
      } else if (c.op == "choose") {
        done_well = record.add(c, measure_choosing(c, runs));
      } else {
        done_well = record.add(c, bench_strided(c, runs, roofline));
      }
      if (!done_well.ok()) return bad_input(fmt::format("{}: {}", done_well.error().what, c.line()));
    } catch (const std::bad_alloc&) {
      return bad_input(fmt::format("out of memory: {}", c.line()));
    }
  }
  if (record.against) {
    document["against"] = record.against->as_json();
    if (speak) fmt::print("\n{}", record.against->summary());
  }
  if (options.json.wanted())
    if (const std::string why = options.json.write(document); !why.empty()) return bad_input(why);
  if (!saved.save.empty())
    if (const std::string why = save_run(saved.save, record.run); !why.empty()) return bad_input(why);
  const int above = saved.limit > 0 ? record.against->above(saved.limit) : 0;
  if (above == 0) return kOk;
  std::fflush(stdout);
  fmt::print(stderr, "lacuna: {} {} more than {:g} times as long as in {}\n", above, above == 1 ? "case takes" : "cases take",
             saved.limit, saved.against);
  return kFailedCheck;
}

}  // namespace lacuna::cli
