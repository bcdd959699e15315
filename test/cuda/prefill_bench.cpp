// SPDX-License-Identifier: Apache-2.0
// lacuna-cuda-bench: how fast the prefill kernel is, or its backward (grad, grad_bench.cpp), or the decode kernel
// (decode, decode_bench.cpp), or the choice of blocks (choose, choose_bench.cpp). Each case is checked first, on sampled
// rows against double precision; then it runs for a third of a second to warm the card up and a quarter more for the
// median.
//   lacuna-cuda-bench prefill|grad|decode|choose [--quick] [--only TEXT] [FILE.json]      --only: cases with TEXT in their name
// TFLOP/s count what the call asks for: 2 (dk + dv) operations a pair; of a causal triangle its half, of listed
// blocks every pair, those on the diagonal too (bench/peers/gpu_attention.py counts alike and has the same lists). The
// backward counts five products, 2 (3 dk + 2 dv).
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "bench_case.h"
#include "kernel/cuda/prefill.h"

namespace lacuna {
namespace {

using kernel::cuda::Prefill;
using kernel::cuda::Tensor4;
using test::Case;
using test::DeviceArray;
using test::Lists;
using test::median_ms;
using test::mix;
using test::must;
using test::names;
using test::random_numbers;

constexpr Case kCases[] = {
    {"dense causal 8k D128", 32, 8, 8192, 128, 128},
    {"dense causal 32k D128", 32, 8, 32768, 128, 128},
    {"dense causal 64k D128", 32, 8, 65536, 128, 128},
    {"dense full 16k D128", 32, 8, 16384, 128, 128, 1, 128, 128, 0, false},
    {"dense causal 16k D64", 32, 8, 16384, 64, 64},
    {"dense causal 16k D96", 32, 8, 16384, 96, 96},
    {"dense causal 16k D192/128", 32, 8, 16384, 192, 128},
    {"dense causal 16k D256", 16, 4, 16384, 256, 256},
    {"blocks 128x128 32k 0.50", 32, 8, 32768, 128, 128, 0.5},
    {"blocks 128x128 32k 0.25", 32, 8, 32768, 128, 128, 0.25},
    {"blocks 128x128 32k 0.10", 32, 8, 32768, 128, 128, 0.1},
    {"blocks 128x128 32k 0.05", 32, 8, 32768, 128, 128, 0.05},
    {"blocks 128x64 32k 0.10", 32, 8, 32768, 128, 128, 0.1, 128, 64},
    {"blocks 64x64 32k 0.10 own lists", 32, 8, 32768, 128, 128, 0.1, 64, 64},
    {"blocks 64x128 32k 0.10 own lists", 32, 8, 32768, 128, 128, 0.1, 64, 128},
    {"blocks 64x64 32k 0.10 list of a group", 32, 8, 32768, 128, 128, 0.1, 64, 64, 8},
    {"blocks 128x128 32k 0.10 D64", 32, 8, 32768, 64, 64, 0.1},
};

// Largest relative distance of sampled rows from double precision.
double check(const Case& c, const Prefill& a, const DeviceArray<std::uint16_t>& q, const DeviceArray<std::uint16_t>& k,
             const DeviceArray<std::uint16_t>& v, const DeviceArray<std::uint16_t>& out) {
  double worst = 0;
  for (int sample = 0; sample < 6; ++sample) {
    const int h = sample * 7 % c.hq,
              i = sample == 0 ? c.n - 1 : static_cast<int>(mix(static_cast<std::uint32_t>(sample)) % c.n);
    const std::size_t row = static_cast<std::size_t>(h) * c.n + i,
                      first = static_cast<std::size_t>(h / (c.hq / c.hkv)) * c.n;
    const auto query = q.get(row * c.dk, c.dk), keys = k.get(first * c.dk, static_cast<std::size_t>(c.n) * c.dk),
               values = v.get(first * c.dv, static_cast<std::size_t>(c.n) * c.dv), got = out.get(row * c.dv, c.dv);
    std::vector<double> p(c.n, -INFINITY), want(c.dv);
    double m = -INFINITY, l = 0;
    for (int j = 0; j < (c.causal ? i + 1 : c.n); ++j) {
      if (c.density < 1 && !names(c, h / (c.hq / a.lists.heads), i / c.block_q, j / c.block_k)) continue;
      double s = 0;
      for (int d = 0; d < c.dk; ++d)
        s += static_cast<double>(bf16_to_float(query[d])) * bf16_to_float(keys[static_cast<std::size_t>(j) * c.dk + d]);
      p[j] = s * a.scale;
      m = std::max(m, p[j]);
    }
    for (int j = 0; j < c.n; ++j) {
      if (p[j] == -INFINITY) continue;
      const double e = std::exp(p[j] - m);
      l += e;
      for (int d = 0; d < c.dv; ++d) want[d] += e * bf16_to_float(values[static_cast<std::size_t>(j) * c.dv + d]);
    }
    double off = 0, size = 0;
    for (int d = 0; d < c.dv; ++d) {
      off += std::pow(bf16_to_float(got[d]) - want[d] / l, 2);
      size += std::pow(want[d] / l, 2);
    }
    const double error = std::sqrt(off / size);
    worst = error <= worst ? worst : error;  // NaN stays
  }
  return worst;
}

nlohmann::json measure(const Case& c, bool quick) {
  const std::size_t rows = static_cast<std::size_t>(c.hq) * c.n, keys = static_cast<std::size_t>(c.hkv) * c.n;
  const DeviceArray<std::uint16_t> q(random_numbers(rows * c.dk, 1)), k(random_numbers(keys * c.dk, 2)),
      v(random_numbers(keys * c.dv, 3)), out(rows * c.dv);
  const DeviceArray<float> lse(rows);
  const DeviceArray<std::uint32_t> work(std::vector<std::uint32_t>{0, 0});
  const Lists lists(c);
  const DeviceArray<std::int32_t> row_ptr(lists.row_ptr), columns(lists.columns);
  const auto tensor = [&](void* data, int heads, int d) {
    return Tensor4{data, std::int64_t{heads} * c.n * d, std::int64_t{c.n} * d, d};
  };
  Prefill a;
  a.hq = c.hq, a.hkv = c.hkv, a.nq = a.nk = c.n, a.dk = c.dk, a.dv = c.dv;
  a.q = tensor(q.data(), c.hq, c.dk), a.k = tensor(k.data(), c.hkv, c.dk), a.v = tensor(v.data(), c.hkv, c.dv);
  a.out = tensor(out.data(), c.hq, c.dv);
  a.lse = lse.data(), a.work = work.data();
  a.scale = 1 / std::sqrt(static_cast<float>(c.dk));
  a.causal = c.causal;
  a.lists.block_q = c.block_q, a.lists.block_k = c.block_k;
  if (c.density < 1) {
    a.lists.heads = c.list_heads ? c.list_heads : c.hq;
    a.lists.n_entries = static_cast<int>(lists.columns.size());
    a.lists.row_ptr = row_ptr.data(), a.lists.columns = columns.data();
  }
  nlohmann::json result{{"case", c.name}};
  if (const char* reason = kernel::cuda::prefill_why_not(a)) {
    result["refused"] = reason;
    return result;
  }
  const auto call = [&] {
    if (const char* error = kernel::cuda::prefill(a, nullptr)) {
      fmt::print(stderr, "{}: {}\n", c.name, error);
      std::exit(1);
    }
  };
  must(cudaMemset(out.data(), 0xff, out.size() * 2));
  call();
  must(cudaDeviceSynchronize());
  result["error"] = check(c, a, q, k, v, out);
  const double ms = test::median_ms(call, quick ? 100 : 330, quick ? 100 : 250);
  const double pairs = c.density < 1 ? lists.pairs : static_cast<double>(c.hq) * c.n * c.n * (c.causal ? 0.5 : 1);
  result["ms"] = ms;
  result["tflops"] = 2.0 * (c.dk + c.dv) * pairs / ms / 1e9;
  result["blocks_per_row"] =
      lists.row_ptr.empty() ? 0.0 : static_cast<double>(lists.columns.size()) / lists.row_ptr.size();
  return result;
}

int run(bool grad, bool quick, const char* only, const char* file) {
  auto all = nlohmann::json::array();
  bool right = true;
  for (const Case& c : kCases) {
    if (!std::strstr(c.name, only)) continue;
    const auto r = grad ? test::measure_grad(c, quick) : measure(c, quick);
    all.push_back(r);
    if (r.contains("refused")) {
      fmt::print("{:<40} refused: {}\n", c.name, r["refused"].get<std::string>());
      continue;
    }
    const double error = r["error"];
    const bool fine = error < 1e-2;  // NaN is not
    right = right && fine;
    fmt::print("{:<40} {:8.3f} ms {:5.0f} TFLOP/s  error {:.1e}{}\n", c.name, r["ms"].get<double>(),
               r["tflops"].get<double>(), error, fine ? "" : "  WRONG");
    std::fflush(stdout);
  }
  return test::save(all, file) && right ? 0 : 1;
}

}  // namespace
}  // namespace lacuna

int main(int argc, char** argv) {
  bool quick = false;
  const char *only = "", *file = nullptr;
  const std::string_view what = argc > 1 ? argv[1] : "";
  const bool grad = what == "grad", decode = what == "decode", choose = what == "choose";
  if (!grad && !decode && !choose && what != "prefill") {
    fmt::print(stderr, "lacuna-cuda-bench: got '{}', need prefill, grad, decode or choose\n", what);
    return 2;
  }
  for (int i = 2; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--quick"))
      quick = true;
    else if (!std::strcmp(argv[i], "--only") && i + 1 < argc)
      only = argv[++i];
    else
      file = argv[i];
  }
  if (choose) return lacuna::test::bench_choose(quick, only, file);
  return decode ? lacuna::test::bench_decode(quick, only, file) : lacuna::run(grad, quick, only, file);
}
