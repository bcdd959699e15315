// SPDX-License-Identifier: Apache-2.0
// Assignments beside every other one there is: nothing that loses as little is cheaper, and every prefix keeps the limit.
#include "block/calibrate/assign.h"

#include <gtest/gtest.h>

#include <functional>

#include "base/rng.h"

namespace lacuna::block {
namespace {

struct Total {
  double seconds = 0, lost = 0;
};

// What one way of giving methods to a layer's heads comes to.
Total total_of(const LayerChoices& l, const std::vector<std::uint8_t>& methods) {
  Total t;
  std::vector<bool> used(l.charge.size());
  for (std::size_t h = 0; h < methods.size(); ++h) {
    t.seconds += l.heads[h][methods[h]].seconds;
    t.lost += l.heads[h][methods[h]].lost;
    used[methods[h]] = true;
  }
  for (std::size_t m = 0; m < used.size(); ++m)
    if (used[m]) t.seconds += l.charge[m];
  return t;
}

// All ways for one layer that take at most one method that chooses.
std::vector<Total> all_ways(const LayerChoices& l) {
  std::vector<Total> out;
  std::vector<std::uint8_t> methods(l.heads.size(), 0);
  const std::function<void(std::size_t, std::size_t)> next = [&](std::size_t h, std::size_t charged) {
    if (h == methods.size()) return out.push_back(total_of(l, methods)), void();
    for (std::size_t m = 0; m < l.charge.size(); ++m) {
      if (l.charge[m] > 0 && charged > 0 && charged != m) continue;
      methods[h] = static_cast<std::uint8_t>(m);
      next(h + 1, l.charge[m] > 0 ? m : charged);
    }
  };
  next(0, 0);
  return out;
}

BandChoices draw_band(Rng& rng, int layers, int heads, int methods, double scale) {
  BandChoices band{.rows = 100.0 * layers * heads, .layers = {}};
  for (int l = 0; l < layers; ++l) {
    auto& layer = band.layers.emplace_back();
    layer.charge = {0};
    for (int m = 1; m < methods; ++m) layer.charge.push_back(m == methods - 1 ? 0.3 * rng.uniform() : 0);
    for (int h = 0; h < heads; ++h) {
      auto& head = layer.heads.emplace_back();
      head.push_back({1, 0});
      for (int m = 1; m < methods; ++m) head.push_back({rng.uniform(), scale * rng.uniform()});
    }
  }
  return band;
}

Total total_of(const BandChoices& band, const std::vector<std::vector<std::uint8_t>>& methods) {
  Total t;
  for (std::size_t l = 0; l < band.layers.size(); ++l) {
    const Total one = total_of(band.layers[l], methods[l]);
    t.seconds += one.seconds;
    t.lost += one.lost;
  }
  return t;
}

TEST(Assign, NothingThatLosesAsLittleIsCheaper) {
  for (int seed = 0; seed < 40; ++seed) {
    Rng rng(static_cast<std::uint64_t>(seed) + 1);
    const std::vector<BandChoices> bands = {draw_band(rng, 2, 3, 4, 20)};
    for (const double limit : {0.005, 0.02, 0.05}) {
      const Assignment a = assign(bands, limit);
      const Total ours = total_of(bands[0], a.method[0]);
      EXPECT_NEAR(ours.seconds, a.seconds, 1e-9);
      EXPECT_NEAR(ours.lost, a.lost, 1e-9);
      EXPECT_LE(ours.lost, limit * bands[0].rows + 1e-9);
      for (const Total& x : all_ways(bands[0].layers[0]))
        for (const Total& y : all_ways(bands[0].layers[1])) {
          if (x.lost + y.lost > ours.lost) continue;
          ASSERT_GE(x.seconds + y.seconds, ours.seconds - 1e-9) << "seed " << seed << " limit " << limit;
        }
    }
  }
}

TEST(Assign, UsesTheLimitAsFarAsHeadsLetIt) {
  Rng rng(7);
  const std::vector<BandChoices> bands = {draw_band(rng, 20, 9, 6, 20)};
  const Assignment a = assign(bands, 0.02);
  EXPECT_GT(a.lost, 0.9 * 0.02 * bands[0].rows);
}

// A band that would lose nearly all a run may lose comes first: a run that ends there must keep the limit too.
TEST(Assign, EveryRunKeepsTheLimitAtTheEndOfEveryBand) {
  for (int seed = 0; seed < 20; ++seed) {
    Rng rng(static_cast<std::uint64_t>(seed) + 100);
    std::vector<BandChoices> bands;
    for (const double scale : {60.0, 5.0, 100.0, 1.0}) bands.push_back(draw_band(rng, 4, 4, 5, scale));
    for (const double limit : {0.003, 0.02, 0.1}) {
      const Assignment a = assign(bands, limit);
      double lost = 0, rows = 0;
      for (std::size_t b = 0; b < bands.size(); ++b) {
        lost += total_of(bands[b], a.method[b]).lost;
        rows += bands[b].rows;
        EXPECT_LE(lost, limit * rows * (1 + 1e-6)) << "seed " << seed << " limit " << limit << " band " << b;
      }
    }
  }
}

TEST(Assign, IsDenseWhereNothingKeepsTheLimitAndCheapestWhereAllDoes) {
  Rng rng(3);
  const std::vector<BandChoices> bands = {draw_band(rng, 3, 3, 4, 20)};
  const Assignment none = assign(bands, 0);
  for (const auto& layer : none.method[0])
    for (const std::uint8_t m : layer) EXPECT_EQ(m, 0);
  const Assignment all = assign(bands, 1);
  double least = 0;
  for (const LayerChoices& l : bands[0].layers) {
    double best = 1e9;
    for (const Total& t : all_ways(l)) best = std::min(best, t.seconds);
    least += best;
  }
  EXPECT_NEAR(all.seconds, least, 1e-9);
}

TEST(Assign, AChargeIsPaidOncePerLayer) {
  // Four heads save 0.2 each by the method that chooses; its charge is 0.5.
  BandChoices band{.rows = 4, .layers = {LayerChoices{.charge = {0, 0.5}, .heads = {}}}};
  band.layers[0].heads.assign(4, {{1, 0}, {0.8, 0}});
  EXPECT_NEAR(assign(std::span(&band, 1), 0.01).seconds, 3.7, 1e-12);
  band.layers[0].charge[1] = 0.9;
  EXPECT_NEAR(assign(std::span(&band, 1), 0.01).seconds, 4.0, 1e-12) << "dearer than what it saves";
}

}  // namespace
}  // namespace lacuna::block
