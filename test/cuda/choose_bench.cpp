// SPDX-License-Identifier: Apache-2.0
// How long the choice of blocks takes on the GPU, and choice and attention together. Rows and keys have topics, one
// for each block of 128 tokens: a row block sees the keys of its own topic, a tenth of all, much better than others.
// The mass is set so that the density asked for comes out, by bisection before anything is timed. Then sampled rows of
// out are checked against double precision over the lists that the GPU chose, and those must name the row's topic.
//   lacuna-cuda-bench choose [--quick] [--only TEXT] [FILE.json]
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "bench.h"
#include "kernel/cuda/estimate/minference.h"
#include "kernel/cuda/estimate/spargeattn.h"
#include "kernel/cuda/estimate/xattention.h"
#include "kernel/cuda/prefill.h"

namespace lacuna::test {
namespace {

using kernel::cuda::Prefill;
using kernel::cuda::SpargeAttn;
using kernel::cuda::Tensor4;
using kernel::cuda::XAttention;

struct ChooseBench {
  const char* name;
  int hq, hkv, n, d, stride, block;  // stride 0: spargeattn
  double density;
};
constexpr ChooseBench kCases[] = {
    {"xattention 64k stride 16", 32, 8, 65536, 128, 16, 128, 0.1},
    {"xattention 64k stride 8", 32, 8, 65536, 128, 8, 128, 0.1},
    {"xattention 32k stride 16", 32, 8, 32768, 128, 16, 128, 0.1},
    {"xattention 128k stride 16", 32, 8, 131072, 128, 16, 128, 0.1},
    {"xattention 64k stride 16 blocks of 64", 32, 8, 65536, 128, 16, 64, 0.1},
    {"xattention 64k stride 16 D64", 32, 8, 65536, 64, 16, 128, 0.1},
    {"spargeattn 64k", 32, 8, 65536, 128, 0, 128, 0.1},
};
constexpr int kTopics = 10, kTopicTokens = 128;

int topic_of(int token, int seed) { return static_cast<int>(mix(static_cast<std::uint32_t>(token / kTopicTokens + 7919 * seed)) % kTopics); }

// Noise and, along one of ten directions, the topic; a row and a key of one topic have `lift` more of the scaled score.
std::vector<std::uint16_t> with_topics(int heads, int per_kv, int n, int d, std::uint64_t seed) {
  std::vector<std::uint16_t> all = random_numbers(static_cast<std::size_t>(heads) * n * d, seed);
  constexpr double kLift = 6.5;
  const float more = static_cast<float>(std::sqrt(kLift * std::sqrt(static_cast<double>(d))));
  for (int h = 0; h < heads; ++h)
    for (int i = 0; i < n; ++i) {
      std::uint16_t& x = all[(static_cast<std::size_t>(h) * n + i) * d + topic_of(i, h / per_kv)];
      x = float_to_bf16(bf16_to_float(x) + more);
    }
  return all;
}

struct Checked {
  double error = 0, own_topic = 1;  // share of the seen blocks of a row's topic that are in its list
};
Checked check(const ChooseBench& c, const Prefill& a, const std::vector<std::int32_t>& row_ptr, const std::vector<std::int32_t>& columns,
              const DeviceArray<std::uint16_t>& q, const DeviceArray<std::uint16_t>& k, const DeviceArray<std::uint16_t>& v,
              const DeviceArray<std::uint16_t>& out) {
  Checked worst;
  for (int sample = 0; sample < 6; ++sample) {
    const int h = sample * 7 % c.hq, kv = h / (c.hq / c.hkv);
    const int i = sample == 0 ? c.n - 1 : static_cast<int>(mix(static_cast<std::uint32_t>(sample)) % static_cast<unsigned>(c.n));
    const std::size_t row = static_cast<std::size_t>(h) * c.n + i, first = static_cast<std::size_t>(kv) * c.n * c.d;
    const auto query = q.get(row * c.d, c.d), keys = k.get(first, static_cast<std::size_t>(c.n) * c.d),
               values = v.get(first, static_cast<std::size_t>(c.n) * c.d), got = out.get(row * c.d, c.d);
    const int blocks = c.n / c.block, u = i / c.block;
    const std::int32_t* at = row_ptr.data() + static_cast<std::size_t>(h) * (blocks + 1) + u;
    std::vector<double> want(c.d);
    double m = -INFINITY, l = 0;
    std::vector<std::pair<int, double>> scores;
    std::vector<bool> kept(blocks);
    for (int e = at[0]; e < at[1]; ++e) {
      kept[columns[e]] = true;
      for (int j = columns[e] * c.block; j < (columns[e] + 1) * c.block && j <= i; ++j) {
        double s = 0;
        for (int x = 0; x < c.d; ++x) s += static_cast<double>(bf16_to_float(query[x])) * bf16_to_float(keys[static_cast<std::size_t>(j) * c.d + x]);
        scores.push_back({j, s * a.scale});
        m = std::max(m, s * a.scale);
      }
    }
    for (const auto& [j, s] : scores) {
      const double e = std::exp(s - m);
      l += e;
      for (int x = 0; x < c.d; ++x) want[x] += e * bf16_to_float(values[static_cast<std::size_t>(j) * c.d + x]);
    }
    double off = 0, size = 0;
    for (int x = 0; x < c.d; ++x) {
      off += std::pow(bf16_to_float(got[x]) - want[x] / l, 2);
      size += std::pow(want[x] / l, 2);
    }
    const double error = std::sqrt(off / size);
    worst.error = error <= worst.error ? worst.error : error;  // NaN stays
    int of_topic = 0, of_those = 0;
    for (int b = 0; b <= u; ++b)
      if (topic_of(b * c.block, kv) == topic_of(i, kv)) ++of_topic, of_those += kept[b];
    worst.own_topic = std::min(worst.own_topic, static_cast<double>(of_those) / of_topic);
  }
  return worst;
}

void started(const char* error, const char* name) {
  if (!error) return;
  fmt::print(stderr, "{}: {}\n", name, error);
  std::exit(1);
}

nlohmann::json measure(const ChooseBench& c, bool quick) {
  nlohmann::json result{{"case", c.name}, {"hq", c.hq}, {"hkv", c.hkv}, {"n", c.n}, {"d", c.d}, {"stride", c.stride}, {"block", c.block}};
  const std::size_t rows = static_cast<std::size_t>(c.hq) * c.n * c.d, keys = static_cast<std::size_t>(c.hkv) * c.n * c.d;
  const DeviceArray<std::uint16_t> q(with_topics(c.hq, c.hq / c.hkv, c.n, c.d, 1)), k(with_topics(c.hkv, 1, c.n, c.d, 2)),
      v(random_numbers(keys, 3)), out(rows);
  const DeviceArray<std::uint32_t> work(std::vector<std::uint32_t>{0, 0});
  const auto tensor = [&](void* data, int heads) {
    return Tensor4{data, std::int64_t{heads} * c.n * c.d, std::int64_t{c.n} * c.d, c.d};
  };
  XAttention x;
  x.hq = c.hq, x.hkv = c.hkv, x.nq = x.nk = c.n, x.dk = c.d;
  x.q = tensor(q.data(), c.hq), x.k = tensor(k.data(), c.hkv);
  x.scale = 1 / std::sqrt(static_cast<float>(c.d));
  x.stride = std::max(1, c.stride), x.block = c.block;
  SpargeAttn g;
  g.hq = c.hq, g.hkv = c.hkv, g.nq = g.nk = c.n, g.dk = c.d;
  g.q = x.q, g.k = x.k, g.scale = x.scale;
  g.row_block = g.block = c.block, g.similarity = 0.15f;
  const bool sparge = c.stride == 0;
  const int blocks = c.n / c.block;
  const DeviceArray<std::int32_t> row_ptr(static_cast<std::size_t>(c.hq) * (blocks + 1)),
      columns(static_cast<std::size_t>(sparge ? spargeattn_entries(g) : xattention_entries(x)));
  const DeviceArray<char> room(static_cast<std::size_t>(sparge ? spargeattn_room(g) : xattention_room(x)));
  x.row_ptr = g.row_ptr = row_ptr.data(), x.columns = g.columns = columns.data(), x.room = g.room = room.data();
  Prefill a;
  a.hq = c.hq, a.hkv = c.hkv, a.nq = a.nk = c.n, a.dk = a.dv = c.d;
  a.q = x.q, a.k = x.k, a.v = tensor(v.data(), c.hkv), a.out = tensor(out.data(), c.hq);
  a.scale = x.scale, a.causal = true, a.work = work.data();
  a.lists = sparge ? lists_of(g) : lists_of(x);
  for (const char* reason : {sparge ? spargeattn_why_not(g) : xattention_why_not(x), prefill_why_not(a)})
    if (reason) {
      result["refused"] = reason;
      return result;
    }
  const auto choose = [&] { started(sparge ? spargeattn(g, nullptr) : xattention(x, nullptr), c.name); };
  const auto attend = [&] { started(prefill(a, nullptr), c.name); };
  const double seen = static_cast<double>(c.hq) * blocks * (blocks + 1) / 2;
  double density = 0;
  const auto density_at = [&](float mass) {
    x.mass = g.mass = mass;
    choose();
    return row_ptr.get(row_ptr.size() - 1, 1)[0] / seen;
  };
  float low = 0.01f, high = 0.9999f;
  for (int i = 0; i < 12; ++i) {
    const float mass = (low + high) / 2;
    (density_at(mass) < c.density ? low : high) = mass;
  }
  density = density_at(high);
  result["mass"] = high;
  result["density"] = density;
  must(cudaMemset(out.data(), 0xff, out.size() * 2));
  attend();
  must(cudaDeviceSynchronize());
  const Checked checked = check(c, a, row_ptr.get(), columns.get(), q, k, v, out);
  result["error"] = checked.error;
  result["own_topic"] = checked.own_topic;
  const double warm = quick ? 50 : 330, time = quick ? 50 : 250;
  result["choose_ms"] = median_ms(choose, warm, time);
  result["attend_ms"] = median_ms(attend, warm, time);
  result["all_ms"] = median_ms([&] { choose(), attend(); }, warm, time);
  result["room_mb"] = static_cast<double>(room.size()) / 1e6;
  return result;
}

// MInference's lines do not follow topics: only the time to choose them, a fiftieth of the columns and a tenth of the distances.
nlohmann::json measure_lines(int n, bool quick) {
  constexpr int kHq = 32, kHkv = 8, kD = 128;
  nlohmann::json result{{"case", fmt::format("minference {}k choice alone", n / 1024)}, {"hq", kHq}, {"hkv", kHkv}, {"n", n}, {"d", kD}};
  const DeviceArray<std::uint16_t> q(random_numbers(static_cast<std::size_t>(kHq) * n * kD, 1)),
      k(random_numbers(static_cast<std::size_t>(kHkv) * n * kD, 2));
  kernel::cuda::MInference m;
  m.hq = kHq, m.hkv = kHkv, m.nq = m.nk = n, m.dk = kD;
  m.q = {q.data(), std::int64_t{kHq} * n * kD, std::int64_t{n} * kD, kD}, m.k = {k.data(), std::int64_t{kHkv} * n * kD, std::int64_t{n} * kD, kD};
  m.scale = 1 / std::sqrt(static_cast<float>(kD));
  m.vertical = n / 50, m.slash = n / 10;
  const DeviceArray<std::int32_t> row_ptr(static_cast<std::size_t>(kHq) * (n / m.block + 1)),
      columns(static_cast<std::size_t>(minference_entries(m)));
  const DeviceArray<char> room(static_cast<std::size_t>(minference_room(m)));
  m.row_ptr = row_ptr.data(), m.columns = columns.data(), m.room = room.data();
  if (const char* reason = minference_why_not(m)) {
    result["refused"] = reason;
    return result;
  }
  result["choose_ms"] = median_ms([&] { started(minference(m, nullptr), "minference"); }, quick ? 50 : 330, quick ? 50 : 250);
  return result;
}

}  // namespace

int bench_choose(bool quick, const char* only, const char* file) {
  auto all = nlohmann::json::array();
  bool right = true;
  for (const ChooseBench& c : kCases) {
    if (!std::strstr(c.name, only)) continue;
    const auto r = measure(c, quick);
    all.push_back(r);
    if (r.contains("refused")) {
      fmt::print("{:<40} refused: {}\n", c.name, r["refused"].get<std::string>());
      continue;
    }
    const bool fine = r["error"] < 1e-2 && r["own_topic"] > 0.5;  // NaN is not
    right = right && fine;
    fmt::print("{:<40} choose {:7.3f} ms, attend {:7.3f}, both {:7.3f}  density {:.3f} at mass {:.4f}  room {:.0f} MB  "
               "error {:.1e}, own topic {:.2f}{}\n",
               c.name, r["choose_ms"].get<double>(), r["attend_ms"].get<double>(), r["all_ms"].get<double>(), r["density"].get<double>(),
               r["mass"].get<double>(), r["room_mb"].get<double>(), r["error"].get<double>(), r["own_topic"].get<double>(), fine ? "" : "  WRONG");
    std::fflush(stdout);
  }
  if (std::strstr("minference 64k choice alone", only)) {
    all.push_back(measure_lines(65536, quick));
    fmt::print("{:<40} choose {:7.3f} ms\n", all.back()["case"].get<std::string>(), all.back().value("choose_ms", 0.0));
  }
  return save(all, file) && right ? 0 : 1;
}

}  // namespace lacuna::test
