// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/choosing.h"

#include <algorithm>
#include <memory>

#include "base/clock.h"
#include "cli/bench/ratio.h"
#include "cli/bench/timing.h"
#include "cli/common.h"
#include "engine/made_up.h"
#include "lacuna/lacuna.h"
#include "op/context.h"

namespace lacuna::cli {
namespace {

// The last of many layers: some methods leave the first ones dense.
constexpr int kLayers = 64;

// One prompt in the layouts a host has, with room for its result.
struct Prompt {
  explicit Prompt(const Case& c) : hq(c.hq), hkv(c.hkv), d(c.d), dv(c.value_dim()), k_type(c.kv), v_type(c.v_type()) {
    std::vector<float> some;
    make_up(hq, hkv, c.nq, c.nkv, d, c.seed, q, some);
    Rng rng(c.seed + 1);
    some.resize(static_cast<std::size_t>(c.nkv * hkv * dv));
    for (float& x : some) x = static_cast<float>(rng.normal());
    k = as_type(some, k_type);
    v = as_type(some, v_type);
    out.resize(static_cast<std::size_t>(c.nq * hq * dv));
  }
  Tensor keys(std::int64_t cells) { return token_major(k.data(), k_type, 1, static_cast<int>(hkv), cells, static_cast<int>(d)); }
  Tensor values(std::int64_t cells) { return token_major(v.data(), v_type, 1, static_cast<int>(hkv), cells, static_cast<int>(dv)); }
  // Rows [first, first + rows) of nq, which see the first `cells` cells.
  AttendCall call(std::int64_t first, std::int64_t rows, std::int64_t cells) {
    AttendCall a;
    a.layer = kLayers - 1;
    a.q = token_major(q.data() + first * hq * d, Dtype::f32, 1, static_cast<int>(hq), rows, static_cast<int>(d));
    a.k = keys(cells);
    a.v = values(cells);
    a.out = token_major(out.data() + first * hq * dv, Dtype::f32, 1, static_cast<int>(hq), rows, static_cast<int>(dv));
    return a;
  }
  std::int64_t hq, hkv, d, dv;
  Dtype k_type, v_type;
  std::vector<float> q, out;
  std::vector<unsigned char> k, v;
};

Result<std::unique_ptr<Session>> open(const Case& c, const std::string& method, ParallelFor& threads) {
  Options options;
  options.method = method;
  options.precision = c.precision;
  options.machine = c.machine;
  options.kernel = c.kernel;
  options.seed = c.seed;
  options.parallel = &threads;
  auto session = Session::open(options);
  if (session.ok()) session.value()->announce(kLayers, c.nkv);
  return session;
}

}  // namespace

Result<Choosing> measure_choosing(const Case& c, int rounds) {
  const auto threads = make_thread_pool(c.threads);
  auto dense = open(c, "dense", *threads), method = open(c, c.method, *threads);
  if (!dense.ok()) return dense.error();
  if (!method.ok()) return method.error();
  Prompt prompt(c);
  const auto packed = [&](PackedTensor::Role role, std::int64_t dim, const SideRequest& side) {
    return std::make_unique<PackedTensor>(role, role == PackedTensor::Role::key ? c.kv : c.v_type(), c.nkv, static_cast<int>(c.hkv), static_cast<int>(dim), c.precision, c.machine,
                                          c.kernel, side);
  };
  // Keys without what the method wants kept beside them, and with it: what that costs is the difference.
  const SideRequest side = method.value()->side(kLayers - 1);
  const auto values = packed(PackedTensor::Role::value, c.value_dim(), nullptr), plain_keys = packed(PackedTensor::Role::key, c.d, nullptr),
             keys = packed(PackedTensor::Role::key, c.d, side);
  const std::int64_t before = c.nkv - c.nq;  // keys of earlier calls
  values->write(prompt.values(c.nkv), 0, c.nkv, threads.get());
  for (PackedTensor* t : {plain_keys.get(), keys.get()}) t->write(prompt.keys(c.nkv), 0, c.nkv, threads.get());

  // One pass over the prompt, call by call.
  const auto attend = [&](Session& session, const PackedTensor& k) -> Result<PhaseReport> {
    session.reset_report();
    for (std::int64_t first = 0; first < c.nq; first += c.chunk) {
      const std::int64_t rows = std::min(c.chunk, c.nq - first);
      AttendCall call = prompt.call(first, rows, before + first + rows);
      call.packed_k = &k;
      call.packed_v = values.get();
      LACUNA_CHECK(session.attend(call));
    }
    const Report report = session.report();
    return c.chunk > 1 ? report.prefill : report.decode;
  };
  const auto write = [&](PackedTensor& k) {
    return seconds_of([&] {
      for (std::int64_t first = 0; first < c.nq; first += c.chunk)
        k.write(prompt.keys(c.nkv), before + first, std::min(c.chunk, c.nq - first), threads.get());
    });
  };

  Choosing o;
  Progress progress("bench " + c.method, rounds, "rounds");
  constexpr double kSeconds = 3;
  for (int i = -1; i < rounds || i < 0; ++i) {  // one to warm up
    const double start = now();
    const auto all = attend(*dense.value(), *plain_keys);
    if (!all.ok()) return all.error();
    const auto some = attend(*method.value(), *keys);
    if (!some.ok()) return some.error();
    const double plain = side ? write(*plain_keys) : 0, kept = side ? write(*keys) : 0;
    if (rounds == 0) rounds = std::clamp(static_cast<int>(kSeconds / (now() - start)), static_cast<int>(kFewestRounds), 101);
    progress.update(std::max(i, 0));
    if (i < 0) continue;
    const auto seconds = [](const PhaseReport& r, Verb verb) { return r.seconds[static_cast<int>(verb)]; };
    o.dense.push_back(seconds(all.value(), Verb::attend));
    o.estimate.push_back(seconds(some.value(), Verb::estimate));
    o.budget.push_back(seconds(some.value(), Verb::budget));
    o.attend.push_back(seconds(some.value(), Verb::attend));
    o.side.push_back(std::max(0.0, kept - plain));
    o.share.push_back((o.estimate.back() + o.budget.back() + o.side.back()) / o.dense.back());
    o.density = some.value().density();
    o.attended_pairs = some.value().attended_pairs;
  }
  const Report report = method.value()->report();
  o.kernel = report.kernel;
  o.note = report.note;
  return o;
}

}  // namespace lacuna::cli
