// SPDX-License-Identifier: Apache-2.0
// Top-Theta: the proofs of its sheet that speak of what is kept; its compensations are not here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "block/calibrate/score_quantile.h"
#include "method/calibrator.h"
#include "method/profile.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_top_theta();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

Result<Plan> decode(MethodLab& lab, const Method& m, int layer = 0) { return m.plan(lab.view(lab.n - 1, lab.n, layer), lab.context); }

std::vector<double> sorted_logits(MethodLab& lab, int h, std::int64_t i) {
  std::vector<double> s;
  for (std::int64_t j = 0; j <= i; ++j) s.push_back(lab.logit(h, i, j));
  std::sort(s.rbegin(), s.rend());
  return s;
}

int survivors(const Plan& p, const MethodLab& lab, int h) {
  const Grid g{lab.hq, 1, lab.n, lab.n - 1};
  int n = 0;
  for (std::int64_t j = 0; j < lab.n; ++j) n += keeps(p, g, h, 0, j);
  return n;
}

// A profile of what a calibrator saw of a model like the lab's.
Profile profile_of(const MethodLab& lab, int layers, nlohmann::json data) {
  Profile p;
  p.slug = "top-theta";
  p.model.n_layers = layers;
  p.model.hq = lab.hq;
  p.model.hkv = lab.hkv;
  p.model.dk = p.model.dv = lab.d;
  p.data = std::move(data);
  return p;
}

TEST(TopTheta, TheLeastThresholdIsDenseAndAboveAllTheBestKeyStays) {
  MethodLab lab(2, 1, 300, 16, 2);
  EXPECT_TRUE(is_dense(decode(lab, *make(method_entry_top_theta())).value()));
  const Plan all = decode(lab, *make(method_entry_top_theta(), {{"theta", -900}})).value();
  const Plan none = decode(lab, *make(method_entry_top_theta(), {{"theta", 1000}})).value();
  const Grid g{2, 1, 300, 299};
  for (int h = 0; h < 2; ++h) {
    EXPECT_EQ(survivors(all, lab, h), 300);
    ASSERT_EQ(survivors(none, lab, h), 1);
    for (std::int64_t j = 0; j < 300; ++j)
      if (keeps(none, g, h, 0, j)) {
        EXPECT_NEAR(lab.logit(h, 299, j), sorted_logits(lab, h, 299)[0], 1e-5);
      }
  }
}

TEST(TopTheta, KeepsExactlyWhatLiesAbove) {
  MethodLab lab(4, 2, 500, 16, 3);
  const Plan p = decode(lab, *make(method_entry_top_theta(), {{"theta", 0.8}})).value();
  ASSERT_TRUE(std::get<Ranges>(p.pattern()).check().ok());
  const Grid g{4, 1, 500, 499};
  for (int h = 0; h < 4; ++h)
    for (std::int64_t j = 0; j < 500; ++j) EXPECT_EQ(keeps(p, g, h, 0, j), lab.logit(h, 499, j) > 0.8) << h << ' ' << j;
}

// A threshold from the row's own quantile: exactly as many keys pass as were asked for, and they are the largest.
TEST(TopTheta, ARowsOwnQuantileLetsExactlyTheBudgetPass) {
  MethodLab lab(4, 2, 700, 16, 4);
  const auto method = make(method_entry_top_theta(), {{"budget", 90}, {"sigma", 0}});
  auto watch = method->calibrator();
  EXPECT_FALSE(watch->finish().ok()) << "nothing seen yet";
  ASSERT_TRUE(watch->observe(lab.view(699, 700), lab.context).ok());
  const auto data = watch->finish();
  ASSERT_TRUE(data.ok()) << data.error().what;
  ASSERT_TRUE(method->use(profile_of(lab, 1, data.value())).ok());
  const Plan p = decode(lab, *method).value();
  const Grid g{4, 1, 700, 699};
  for (int h = 0; h < 4; ++h) {
    EXPECT_EQ(survivors(p, lab, h), 90);
    const double least = sorted_logits(lab, h, 699)[89];
    for (std::int64_t j = 0; j < 700; ++j)
      if (keeps(p, g, h, 0, j)) {
        EXPECT_GE(lab.logit(h, 699, j), least - 1e-5);
      }
  }
}

// mean + sigma * deviation of the rows' quantiles, by band of lengths, against the same sums made here.
TEST(TopTheta, ThresholdsAreMeansOfQuantiles) {
  MethodLab lab(2, 1, 400, 16, 5);
  const auto method = make(method_entry_top_theta(), {{"budget", 30}, {"sigma", 0.5}, {"sample", 400}});
  auto watch = method->calibrator();
  ASSERT_TRUE(watch->observe(lab.view(0, 200), lab.context).ok());
  auto again = method->calibrator();  // goes on from what was saved
  ASSERT_TRUE(again->load(watch->save()).ok());
  ASSERT_TRUE(again->observe(lab.view(200, 400), lab.context).ok());
  const nlohmann::json data = again->finish().value();
  const auto& layer = data["layers"][0];
  ASSERT_EQ(layer["length"].size(), layer["theta"].size());
  ASSERT_GT(layer["length"].size(), 8u);
  const std::size_t last = layer["length"].size() - 1;
  const auto band = [](std::int64_t n) { return std::floor(4 * std::log2(static_cast<double>(n))); };
  for (int h = 0; h < 2; ++h) {
    double rows = 0, sum = 0, square = 0, length = 0;
    for (std::int64_t n = 31; n <= 400; ++n) {
      if (band(n) != band(400)) continue;
      const double t = sorted_logits(lab, h, n - 1)[30];
      ++rows, sum += t, square += t * t, length += static_cast<double>(n);
    }
    const double mean = sum / rows;
    EXPECT_NEAR(layer["theta"][last][static_cast<std::size_t>(h)].get<double>(), mean + 0.5 * std::sqrt(square / rows - mean * mean), 1e-4);
    EXPECT_EQ(layer["length"][last].get<std::int64_t>(), std::llround(length / rows));
  }
}

// Rows that no calibration has seen, in two layers whose scores differ: about as many pass as were asked for, fewer in the first
// layers where more were asked for of neither.
TEST(TopTheta, AboutTheBudgetPassesOnOtherRows) {
  constexpr int kN = 1500;
  MethodLab seen(2, 1, kN, 16, 6), other(2, 1, kN, 16, 7);
  const auto method = make(method_entry_top_theta(), {{"budget", 100}, {"first_budget", 400}, {"sample", 64}});
  auto watch = method->calibrator();
  for (const int layer : {0, 1, 2})
    for (int begin = 0; begin < kN; begin += 500) {
      AttentionView x = seen.view(begin, begin + 500, layer);
      if (layer == 2) x.scale *= 3;
      ASSERT_TRUE(watch->observe(x, seen.context).ok());
    }
  ASSERT_TRUE(method->use(profile_of(seen, 3, watch->finish().value())).ok());
  for (const int layer : {0, 2}) {
    double mean = 0;
    for (int i = kN - 100; i < kN; ++i) {
      AttentionView x = other.view(i, i + 1, layer);
      if (layer == 2) x.scale *= 3;
      const Plan p = method->plan(x, other.context).value();
      const Grid g{2, 1, i + 1, i};
      for (int h = 0; h < 2; ++h)
        for (std::int64_t j = 0; j <= i; ++j) mean += keeps(p, g, h, 0, j) / 200.0;
    }
    const double wanted = layer == 0 ? 400 : 100;
    EXPECT_GT(mean, 0.7 * wanted) << layer;
    EXPECT_LT(mean, 1.3 * wanted) << layer;
  }
  MethodLab brief(2, 1, 90, 16, 8);
  EXPECT_TRUE(is_dense(decode(brief, *method, 2).value())) << "fewer keys than shall pass";
  EXPECT_TRUE(is_dense(decode(other, *method, 3).value())) << "a layer that was not calibrated";
}

TEST(TopTheta, TakesTheThresholdOfTheNearestLength) {
  MethodLab lab(1, 1, 300, 16, 9);
  const auto method = make(method_entry_top_theta(), {{"budget", 10}});
  const nlohmann::json layer = {{"length", {100, 240, 900}}, {"theta", {{-9e4}, {9e4}, {-9e4}}}};
  ASSERT_TRUE(method->use(profile_of(lab, 1, {{"heads", 1}, {"layers", {layer}}})).ok());
  EXPECT_EQ(survivors(decode(lab, *method).value(), lab, 0), 1) << "240";
  MethodLab longer(1, 1, 700, 16, 9);
  EXPECT_EQ(survivors(decode(longer, *method).value(), longer, 0), 700) << "900";
}

TEST(TopTheta, TheMostKeysAreTheNewestThatPass) {
  MethodLab lab(1, 1, 500, 16, 10);
  const Plan all = decode(lab, *make(method_entry_top_theta(), {{"theta", 0}})).value();
  const Plan some = decode(lab, *make(method_entry_top_theta(), {{"theta", 0}, {"max_budget", 50}})).value();
  const Grid g{1, 1, 500, 499};
  int newest = 0;
  for (std::int64_t j = 499; j >= 0; --j) {
    newest += keeps(all, g, 0, 0, j);
    EXPECT_EQ(keeps(some, g, 0, 0, j), keeps(all, g, 0, 0, j) && newest <= 50) << j;
  }
}

TEST(TopTheta, PromptsAreDense) {
  MethodLab lab(1, 1, 300, 16);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_top_theta(), {{"theta", 0}}), 0, 300).value()));
}

TEST(TopTheta, NamesWhatAProfileHasWrong) {
  MethodLab lab(2, 1, 300, 16);
  const auto why = [&](nlohmann::json data) { return make(method_entry_top_theta())->use(profile_of(lab, 2, std::move(data))).error().what; };
  const nlohmann::json good = {{"length", {100}}, {"theta", {{0.5, 1}}}};
  EXPECT_TRUE(make(method_entry_top_theta())->use(profile_of(lab, 2, {{"heads", 2}, {"layers", {good, good}}})).ok());
  EXPECT_NE(why({{"layers", {good}}}).find("heads"), std::string::npos);
  EXPECT_NE(why({{"heads", 3}, {"layers", {good}}}).find("data.heads: got 3, need 2"), std::string::npos);
  EXPECT_NE(why({{"heads", 2}, {"layers", {good, good, good}}}).find("data.layers"), std::string::npos);
  EXPECT_NE(why({{"heads", 2}, {"layers", {{{"length", {100, 200}}, {"theta", {{0.5, 1}}}}}}}).find("data.layers[0].theta"), std::string::npos);
  EXPECT_NE(why({{"heads", 2}, {"layers", {{{"length", {100}}, {"theta", {{0.5}}}}}}}).find("data.layers[0].theta[0]"), std::string::npos);
  EXPECT_NE(why({{"heads", 2}, {"layers", {{{"length", {100}}, {"theta", {{0.5, "x"}}}}}}}).find("data.layers[0].theta[0]"), std::string::npos);
  EXPECT_NE(why({{"heads", 2}, {"layers", {{{"length", {0}}, {"theta", {{0.5, 1}}}}}}}).find("data.layers[0].length"), std::string::npos);
}

// What was saved and then damaged is refused.
TEST(TopTheta, ADamagedPartOfACalibrationIsRefused) {
  MethodLab lab(1, 1, 400, 16, 11);
  auto watch = make(method_entry_top_theta(), {{"budget", 30}})->calibrator();
  ASSERT_TRUE(watch->observe(lab.view(0, 400), lab.context).ok());
  const nlohmann::json state = watch->save();
  EXPECT_TRUE(watch->load(state).ok());
  for (const char* path : {"/heads", "/layers", "/layers/0/0/sum", "/layers/0/0/rows", "/layers/0/0/square/0"}) {
    nlohmann::json damaged = state;
    damaged[nlohmann::json::json_pointer(path)] = "x";
    EXPECT_FALSE(watch->load(damaged).ok()) << path;
  }
}

}  // namespace
}  // namespace lacuna::method
