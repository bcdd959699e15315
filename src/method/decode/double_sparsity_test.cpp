// SPDX-License-Identifier: Apache-2.0
// Double Sparsity: the proofs of its sheet (the mapping between layouts is channel_mean's).
#include <gtest/gtest.h>

#include "method/calibrator.h"
#include "method/profile.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_double_sparsity();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

Result<Plan> decode(MethodLab& lab, const Method& m) { return m.plan(lab.view(lab.n - 1, lab.n, 2, m.side(2)), lab.context); }

// The k keys of largest product with the last row's query.
std::vector<std::int64_t> oracle(MethodLab& lab, int h, int k) {
  std::vector<std::int64_t> keys;
  for (std::int64_t j = 0; j < lab.n; ++j) keys.push_back(j);
  std::sort(keys.begin(), keys.end(), [&](auto a, auto b) { return lab.logit(h, lab.n - 1, a) > lab.logit(h, lab.n - 1, b); });
  keys.resize(static_cast<std::size_t>(k));
  return keys;
}

double recall(MethodLab& lab, const Plan& p, int k) {
  double found = 0;
  const Grid g{lab.hq, 1, lab.n, lab.n - 1};
  for (int h = 0; h < lab.hq; ++h)
    for (const std::int64_t j : oracle(lab, h, k)) found += keeps(p, g, h, 0, j);
  return found / (lab.hq * k);
}

TEST(DoubleSparsity, AllChannelsAreExactTopKAndABudgetOfEverythingIsDense) {
  MethodLab lab(4, 2, 700, 32, 3);
  EXPECT_DOUBLE_EQ(recall(lab, decode(lab, *make(method_entry_double_sparsity(), {{"channels", 32}, {"budget", 90}, {"share", 0}})).value(), 90), 1.0);
  EXPECT_TRUE(is_dense(decode(lab, *make(method_entry_double_sparsity(), {{"budget", 700}})).value()));
}

// Three channels carry the products: the calibrated eight find far more of the oracle's keys than an even spread.
TEST(DoubleSparsity, CalibratedChannelsBeatOthers) {
  constexpr int kD = 64, kN = 1200, kKept = 60;
  MethodLab lab(2, 1, kN, kD, 11);
  for (std::int64_t i = 0; i < kN; ++i)
    for (const int heavy : {5, 27, 43}) {
      lab.k_at(0, i)[heavy] *= 3.2f;
      for (int h = 0; h < 2; ++h) lab.q_at(h, i)[heavy] *= 3.2f;
    }
  auto plain = make(method_entry_double_sparsity(), {{"channels", 8}, {"budget", kKept}, {"share", 0}});
  auto watch = plain->calibrator();
  EXPECT_FALSE(watch->finish().ok()) << "nothing seen yet";
  for (int layer = 0; layer < 3; ++layer) ASSERT_TRUE(watch->observe(lab.view(0, kN, layer), lab.context).ok());
  auto data = watch->finish();
  ASSERT_TRUE(data.ok()) << data.error().what;
  Profile p;
  p.slug = "double-sparsity";
  p.model.n_layers = 3;
  p.model.hq = 2;
  p.model.hkv = 1;
  p.model.dk = p.model.dv = kD;
  p.data = data.value();
  auto tuned = make(method_entry_double_sparsity(), {{"channels", 8}, {"budget", kKept}, {"share", 0}});
  ASSERT_TRUE(tuned->use(p).ok());
  const double with = recall(lab, decode(lab, *tuned).value(), kKept), without = recall(lab, decode(lab, *plain).value(), kKept);
  EXPECT_GT(with, 0.45);
  EXPECT_GT(with, without + 0.25);

  auto order = p.data["order"];
  p.data["order"][1][0] = p.data["order"][1][1];
  EXPECT_NE(tuned->use(p).error().what.find("data.order[1]"), std::string::npos) << "not a permutation";
  p.data["order"] = order;
  p.model.hkv = 2;  // lists for one head: the cache of such a model would keep none of them
  EXPECT_NE(tuned->use(p).error().what.find("data.heads: got 1, need 2"), std::string::npos);
  p.model.hkv = 1;
  p.model.dk = 4;
  EXPECT_NE(tuned->use(p).error().what.find("double-sparsity.channels: got 8"), std::string::npos);
}

TEST(DoubleSparsity, AGroupSharesItsList) {
  MethodLab lab(4, 2, 600, 32, 4);
  const Plan p = decode(lab, *make(method_entry_double_sparsity(), {{"budget", 50}})).value();
  const Grid g{4, 1, 600, 599};
  int kept = 0;
  for (std::int64_t j = 0; j < 600; ++j) {
    ASSERT_EQ(keeps(p, g, 0, 0, j), keeps(p, g, 1, 0, j));
    kept += keeps(p, g, 2, 0, j);
  }
  EXPECT_EQ(kept, 50);
}

}  // namespace
}  // namespace lacuna::method
