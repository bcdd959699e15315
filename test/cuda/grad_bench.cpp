// SPDX-License-Identifier: Apache-2.0
// The backward's share of lacuna-cuda-bench: the same cases, forward run once before.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <fmt/format.h>

#include "bench_case.h"
#include "kernel/cuda/prefill_grad.h"
#include "kernel/cuda/sm90a/prefill_grad.h"

namespace lacuna::test {
namespace {

using kernel::cuda::InverseLists;
using kernel::cuda::Prefill;
using kernel::cuda::PrefillGrad;
using kernel::cuda::Tensor4;

void started(const char* error) {
  if (!error) return;
  fmt::print(stderr, "not started: {}\n", error);
  std::exit(1);
}

struct Numbers {
  const DeviceArray<std::uint16_t>&q, &k, &v, &g, &d_q, &d_k, &d_v;
  const DeviceArray<float>& rows;
};

bool sees(const Case& c, int list_heads, int h, int i, int j) {
  if (c.causal && j > i) return false;
  return c.density >= 1 || names(c, h / (c.hq / list_heads), i / c.block_q, j / c.block_k);
}

// p and ds of a pair in double precision, from what forward said of the row.
struct Pair {
  double p, ds;
};
Pair pair_of(const Case& c, double scale, const std::uint16_t* q, const std::uint16_t* k, const std::uint16_t* g,
             const std::uint16_t* v, float x, float y) {
  double s = 0, u = 0;
  for (int d = 0; d < c.dk; ++d) s += static_cast<double>(bf16_to_float(q[d])) * bf16_to_float(k[d]);
  for (int d = 0; d < c.dv; ++d) u += static_cast<double>(bf16_to_float(g[d])) * bf16_to_float(v[d]);
  const double p = std::exp2(s * scale * 1.4426950408889634 - x);
  return {p, p * (u - y)};
}

double distance(const std::vector<double>& want, double factor, const std::vector<std::uint16_t>& got) {
  double off = 0, size = 0;
  for (std::size_t d = 0; d < want.size(); ++d) {
    off += std::pow(bf16_to_float(got[d]) - factor * want[d], 2);
    size += std::pow(factor * want[d], 2);
  }
  return std::sqrt(off / size);
}

// Largest relative distance of sampled rows' dq and a few keys' dk and dv from double precision.
double check(const Case& c, const PrefillGrad& a, const Numbers& x) {
  double worst = 0;
  const auto judge = [&](double error) { worst = error <= worst ? worst : error; };  // NaN stays
  const auto n = static_cast<std::size_t>(c.n);
  const int group = c.hq / c.hkv;
  const std::int64_t of_head = kernel::cuda::prefill_grad_floats(a.forward) / c.hq;
  for (int sample = 0; sample < 3; ++sample) {
    const int h = sample * 7 % c.hq, kv = h / group;
    const auto at = static_cast<int>(sample == 0 ? n - 1 : mix(static_cast<std::uint32_t>(sample)) % n);
    const auto keys = x.k.get(kv * n * c.dk, n * c.dk), values = x.v.get(kv * n * c.dv, n * c.dv);
    std::vector<double> d_q(c.dk), d_k(c.dk), d_v(c.dv);
    for (int head = kv * group; head < (kv + 1) * group; ++head) {
      const auto q = x.q.get(head * n * c.dk, n * c.dk), g = x.g.get(head * n * c.dv, n * c.dv);
      const auto rows = x.rows.get(static_cast<std::size_t>(head * of_head), static_cast<std::size_t>(of_head));
      const auto pair = [&](int i, int j) {
        const float* r = &rows[i / 64 * 128 + i % 64];
        return pair_of(c, a.forward.scale, &q[std::size_t(i) * c.dk], &keys[std::size_t(j) * c.dk],
                       &g[std::size_t(i) * c.dv], &values[std::size_t(j) * c.dv], r[0], r[64]);
      };
      for (int j = 0; j < c.n && head == h; ++j)
        if (sees(c, a.forward.lists.heads, h, at, j)) {
          const double ds = pair(at, j).ds;
          for (int d = 0; d < c.dk; ++d) d_q[d] += ds * bf16_to_float(keys[std::size_t(j) * c.dk + d]);
        }
      for (int i = 0; i < c.n; ++i)
        if (sees(c, a.forward.lists.heads, head, i, at)) {
          const Pair w = pair(i, at);
          for (int d = 0; d < c.dk; ++d) d_k[d] += w.ds * bf16_to_float(q[std::size_t(i) * c.dk + d]);
          for (int d = 0; d < c.dv; ++d) d_v[d] += w.p * bf16_to_float(g[std::size_t(i) * c.dv + d]);
        }
    }
    judge(distance(d_q, a.forward.scale, x.d_q.get((h * n + at) * c.dk, c.dk)));
    judge(distance(d_k, a.forward.scale, x.d_k.get((kv * n + at) * c.dk, c.dk)));
    judge(distance(d_v, 1, x.d_v.get((kv * n + at) * c.dv, c.dv)));
  }
  return worst;
}

}  // namespace

nlohmann::json measure_grad(const Case& c, bool quick) {
  nlohmann::json result{{"case", c.name}};
  const std::size_t rows = static_cast<std::size_t>(c.hq) * c.n, keys = static_cast<std::size_t>(c.hkv) * c.n;
  const DeviceArray<std::uint16_t> q(random_numbers(rows * c.dk, 1)), k(random_numbers(keys * c.dk, 2)),
      v(random_numbers(keys * c.dv, 3)), g(random_numbers(rows * c.dv, 4)), out(rows * c.dv), d_q(rows * c.dk),
      d_k(keys * c.dk), d_v(keys * c.dv);
  const DeviceArray<float> lse(rows);
  const DeviceArray<std::uint32_t> work(std::vector<std::uint32_t>{0, 0});
  const Lists lists(c);
  const DeviceArray<std::int32_t> row_ptr(lists.row_ptr), columns(lists.columns);
  const auto tensor = [&](const DeviceArray<std::uint16_t>& t, int heads, int d) {
    return Tensor4{t.data(), std::int64_t{heads} * c.n * d, std::int64_t{c.n} * d, d};
  };
  PrefillGrad a;
  Prefill& f = a.forward;
  f.hq = c.hq, f.hkv = c.hkv, f.nq = f.nk = c.n, f.dk = c.dk, f.dv = c.dv;
  f.q = tensor(q, c.hq, c.dk), f.k = tensor(k, c.hkv, c.dk), f.v = tensor(v, c.hkv, c.dv);
  f.out = tensor(out, c.hq, c.dv), f.lse = lse.data(), f.work = work.data();
  f.scale = 1 / std::sqrt(static_cast<float>(c.dk));
  f.causal = c.causal;
  f.lists.block_q = c.block_q, f.lists.block_k = c.block_k;
  const int list_heads = c.list_heads ? c.list_heads : c.hq, blocks_k = c.density < 1 ? c.n / c.block_k : 0;
  const DeviceArray<std::int32_t> inverse_ptr(static_cast<std::size_t>(list_heads) * (blocks_k + 1)),
      inverse_rows(lists.columns.size()),
      counts(static_cast<std::size_t>(list_heads) * kernel::cuda::kInverseParts * blocks_k);
  if (c.density < 1) {
    f.lists.heads = list_heads;
    f.lists.n_entries = static_cast<int>(lists.columns.size());
    f.lists.row_ptr = row_ptr.data(), f.lists.columns = columns.data();
    a.inverse = {inverse_ptr.data(), inverse_rows.data(), nullptr, counts.data()};
  }
  const DeviceArray<float> known(static_cast<std::size_t>(kernel::cuda::prefill_grad_floats(f)));
  a.rows = known.data();
  a.d_out = tensor(g, c.hq, c.dv), a.d_q = tensor(d_q, c.hq, c.dk);
  a.d_k = tensor(d_k, c.hkv, c.dk), a.d_v = tensor(d_v, c.hkv, c.dv);
  // The plain kernel would take minutes.
  if (const char* reason = kernel::cuda::sm90a::prefill_grad_why_not(a)) {
    result["refused"] = reason;
    return result;
  }
  for (const auto* t : {&d_q, &d_k, &d_v}) must(cudaMemset(t->data(), 0xff, t->size() * 2));
  started(kernel::cuda::prefill(f, nullptr));
  started(kernel::cuda::invert_lists(f, a.inverse, nullptr));
  const auto call = [&] { started(kernel::cuda::prefill_grad(a, nullptr)); };
  call();
  must(cudaDeviceSynchronize());
  result["error"] = check(c, a, {q, k, v, g, d_q, d_k, d_v, known});
  const double warm = quick ? 100 : 330, span = quick ? 100 : 250, ms = median_ms(call, warm, span);
  if (c.density < 1)
    result["invert_ms"] =
        median_ms([&] { started(kernel::cuda::invert_lists(f, a.inverse, nullptr)); }, warm / 10, span / 10);
  const double pairs = c.density < 1 ? lists.pairs : static_cast<double>(c.hq) * c.n * c.n * (c.causal ? 0.5 : 1);
  result["ms"] = ms;
  result["tflops"] = 2.0 * (3 * c.dk + 2 * c.dv) * pairs / ms / 1e9;
  return result;
}

}  // namespace lacuna::test
