// SPDX-License-Identifier: Apache-2.0
// op exact_mass: every kernel within the error that its header states, which certificates rest on.
#include "op/exact_mass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/rng.h"
#include "kv/element.h"
#include "kv/packed.h"
#include "kv/quantise.h"
#include "lacuna/parallel.h"
#include "support/each_kernel.h"

namespace lacuna::test {
namespace {

struct Case {
  int hq, hkv, d, n;
  Dtype type;
  float softcap, q_size;
  double share;  // of the cells that are chosen
};

void run_on(const kernel::Kernel<op::ExactMass>& k, const op::ExactMass::Args& a, int workers) {
  auto pool = make_thread_pool(workers);
  Workspace space;
  run_kernel(k, a, *pool, space);
}

// log of the mass of a head's chosen cells, in double; size: the largest sum of magnitudes of a score.
double truth(const op::ExactMass::Args& a, int h, double* size) {
  double mass = 0, highest = -INFINITY;
  std::vector<double> scores;
  *size = 0;
  for (std::int64_t c = 0; c < a.n_cells; ++c) {
    if (!(a.chosen[h * tiles_of(a.n_cells) + c / kTileKeys] >> (c % kTileKeys) & 1u)) continue;
    double s = 0, sum = 0;
    for (int d = 0; d < a.dk; ++d) {
      const double x = static_cast<double>(a.q[h * a.q_head + d]) *
                       element(a.k, a.k_type, h / (a.hq / a.hkv) * a.k_head + c * a.k_cell + d);
      s += x, sum += std::fabs(x);
    }
    *size = std::max(*size, sum * a.scale);
    s *= a.scale;
    scores.push_back(a.softcap > 0 ? a.softcap * std::tanh(s / a.softcap) : s);
    highest = std::max(highest, scores.back());
  }
  for (const double s : scores) mass += std::exp(s - highest);
  return highest + std::log(mass);
}

double total(const op::ExactMass::Args& a, int h) {
  double highest = -INFINITY, mass = 0;
  for (std::int64_t p = 0; p < a.parts(); ++p) highest = std::max<double>(highest, a.top[h * a.parts() + p]);
  for (std::int64_t p = 0; p < a.parts(); ++p)
    if (a.sum[h * a.parts() + p] != 0) mass += a.sum[h * a.parts() + p] * std::exp(a.top[h * a.parts() + p] - highest);
  return highest + std::log(mass);
}

TEST(ExactMass, IsAsExactAsItsHeaderSays) {
  const Case cases[] = {{2, 1, 64, 700, Dtype::f16, 0, 1, 0.5},   {9, 3, 64, 5000, Dtype::f16, 0, 3, 0.9},
                        {4, 4, 24, 33, Dtype::bf16, 0, 1, 0.5},   {6, 2, 128, 2100, Dtype::f32, 0, 40, 0.3},
                        {4, 2, 64, 900, Dtype::q8_0, 0, 2, 0.5},  {4, 2, 64, 900, Dtype::q4_0, 0, 2, 0.5},
                        {8, 4, 256, 600, Dtype::f16, 50, 4, 0.5}, {2, 1, 32, 4096, Dtype::f16, 5, 9, 0.01},
                        {10, 2, 16, 64, Dtype::f16, 0, 1, 1},     {2, 2, 80, 2048, Dtype::f16, 0, 0, 1},
                        {1, 1, 64, 1, Dtype::f16, 0, 1, 1},       {7, 1, 64, 4095, Dtype::f16, 0.5f, 60, 0.02}};
  each_kernel(kernel::exact_mass_list, [&](const kernel::Kernel<op::ExactMass>& k) {
    std::uint64_t seed = 0;
    for (const Case& x : cases) {
      Rng rng(++seed);
      std::vector<float> q(static_cast<std::size_t>(x.hq * x.d)), keys(static_cast<std::size_t>(x.hkv) * x.n * x.d);
      for (auto& y : q) y = x.q_size * static_cast<float>(rng.normal());
      for (auto& y : keys) y = static_cast<float>(rng.normal());
      std::vector<char> raw(static_cast<std::size_t>(bytes_of(x.type, static_cast<std::int64_t>(keys.size()))));
      store_elements(raw.data(), x.type, 0, keys.data(), static_cast<std::int64_t>(keys.size()));
      std::vector<std::uint32_t> chosen(static_cast<std::size_t>(x.hq * tiles_of(x.n)), 0u);
      for (int h = 0; h < x.hq; ++h)
        for (int c = 0; c < x.n; ++c)
          if (rng.uniform() < x.share)
            chosen[static_cast<std::size_t>(h * tiles_of(x.n) + c / kTileKeys)] |= 1u << (c % kTileKeys);
      op::ExactMass::Args a{.hq = x.hq,
                            .hkv = x.hkv,
                            .dk = x.d,
                            .n_cells = x.n,
                            .q = q.data(),
                            .q_head = x.d,
                            .k = raw.data(),
                            .k_type = x.type,
                            .k_head = std::int64_t{x.n} * x.d,
                            .k_cell = x.d,
                            .chosen = chosen.data(),
                            .scale = 1 / std::sqrt(static_cast<float>(x.d)),
                            .softcap = x.softcap};
      std::vector<float> top(static_cast<std::size_t>(x.hq * a.parts() + 1), 7.0f), sum = top, top3 = top, sum3 = top;
      a.top = top3.data(), a.sum = sum3.data();
      run_on(k, a, 3);
      a.top = top.data(), a.sum = sum.data();
      run_on(k, a, 1);
      EXPECT_EQ(top, top3) << k.name;
      EXPECT_EQ(sum, sum3) << k.name;
      EXPECT_EQ(top.back(), 7.0f) << k.name;
      for (int h = 0; h < x.hq; ++h) {
        double size = 0;
        const double want = truth(a, h, &size), allowed = 0x1p-24 * (x.d + 32) * size + 0x1p-15 + 0x1p-20 * x.softcap;
        EXPECT_NEAR(total(a, h), want, allowed) << k.name << " case " << seed << " head " << h;
      }
    }
  });
}

TEST(ExactMass, OfNothingIsNothingAndOfNoNumberNone) {
  each_kernel(kernel::exact_mass_list, [](const kernel::Kernel<op::ExactMass>& k) {
    constexpr int kCells = 70, kDim = 16;
    std::vector<float> q(2 * kDim, 1.0f), keys(kCells * kDim, 0.5f);
    for (int d = 0; d < kDim; ++d)
      keys[static_cast<std::size_t>(40 * kDim + d)] = NAN, keys[static_cast<std::size_t>(41 * kDim + d)] = INFINITY;
    std::vector<std::uint32_t> chosen = {0u, 0u, 0u, 1u, 0u, 1u << 4};
    float top[2], sum[2];
    op::ExactMass::Args a{.hq = 2,
                          .hkv = 1,
                          .dk = kDim,
                          .n_cells = kCells,
                          .q = q.data(),
                          .q_head = kDim,
                          .k = keys.data(),
                          .k_type = Dtype::f32,
                          .k_head = 0,
                          .k_cell = kDim,
                          .chosen = chosen.data(),
                          .scale = 1,
                          .softcap = 0,
                          .top = top,
                          .sum = sum};
    run_on(k, a, 1);
    EXPECT_EQ(top[0], -INFINITY) << k.name;
    EXPECT_EQ(sum[0], 0.0f) << k.name;
    EXPECT_NEAR(top[1], 8.0f, 1e-5) << k.name;  // whatever stands beside the chosen cells
    EXPECT_NEAR(sum[1], 2.0f, 1e-5) << k.name;
    for (const int bad : {40, 41}) {
      chosen = {1u, 1u << (bad - 32), 0u, 0u, 0u, 0u};
      run_on(k, a, 1);
      EXPECT_TRUE(std::isnan(sum[0])) << k.name << " cell " << bad;
    }
  });
}

}  // namespace
}  // namespace lacuna::test
