// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

TEST(Session, UnknownMethodNamesTheNearest) {
  Options o;
  o.method = "streamingllmm";
  auto s = Session::open(o);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("did you mean 'streamingllm'"), std::string::npos) << s.error().what;
}

TEST(Session, DenseCausalEqualsTheFormula) {
  constexpr int kHq = 4, kHkv = 2, kN = 37, kD = 16;
  Rng rng(7);
  std::vector<float> q(kHq * kN * kD), out(q.size(), NAN);
  std::vector<std::uint16_t> k(kHkv * kN * kD), v(k.size());
  for (auto& x : q) x = static_cast<float>(rng.normal());
  for (auto& x : k) x = float_to_half(static_cast<float>(rng.normal()));
  for (auto& x : v) x = float_to_half(static_cast<float>(rng.normal()));
  Options o;
  o.precision = Precision::high;
  auto s = Session::open(o);
  ASSERT_TRUE(s.ok());
  AttendCall c;
  c.q = contiguous(q.data(), Dtype::f32, 1, kHq, kN, kD);
  c.k = contiguous(k.data(), Dtype::f16, 1, kHkv, kN, kD);
  c.v = contiguous(v.data(), Dtype::f16, 1, kHkv, kN, kD);
  c.out = contiguous(out.data(), Dtype::f32, 1, kHq, kN, kD);
  auto done = s.value()->attend(c);
  ASSERT_TRUE(done.ok()) << done.error().what;
  for (int h = 0; h < kHq; ++h)
    for (int i = 0; i < kN; ++i) {
      double l = 0;
      std::vector<double> acc(kD, 0.0);
      for (int j = 0; j <= i; ++j) {
        double x = 0;
        for (int d = 0; d < kD; ++d) x += static_cast<double>(q[(h * kN + i) * kD + d]) * half_to_float(k[((h / 2) * kN + j) * kD + d]);
        const double p = std::exp(x / 4.0);
        l += p;
        for (int d = 0; d < kD; ++d) acc[d] += p * half_to_float(v[((h / 2) * kN + j) * kD + d]);
      }
      for (int d = 0; d < kD; ++d) EXPECT_NEAR(out[(h * kN + i) * kD + d], acc[d] / l, 1e-4);
    }
}

}  // namespace
}  // namespace lacuna
