// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/channel_mean.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <vector>

#include "base/half.h"
#include "base/rng.h"

namespace lacuna::block {
namespace {

using Of = ChannelMean::Of;
using Per = ChannelMean::Per;

// Normal q and k of one sequence; some channels of some heads are ten times as large.
struct Planted {
  static constexpr int kHq = 4, kHkv = 2, kN = 96, kD = 32;
  std::vector<float> q, k;  // [h][n][d]
  std::vector<std::uint16_t> half;
  Planted(std::set<int> heavy_q, std::set<int> heavy_k, std::uint64_t seed = 5)
      : q(kHq * kN * kD), k(kHkv * kN * kD), half(k.size()) {
    Rng rng(seed);
    for (std::size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(rng.normal()) * (heavy_q.count(static_cast<int>(i % kD)) ? 10.0f : 1.0f);
    for (std::size_t i = 0; i < k.size(); ++i) {
      half[i] = float_to_half(static_cast<float>(rng.normal()) * (heavy_k.count(static_cast<int>(i % kD)) ? 10.0f : 1.0f));
      k[i] = half_to_float(half[i]);
    }
  }
  ChannelMean::Rows rows(int begin, int end, bool halves = false) const {
    ChannelMean::Rows r;
    r.grid = {kHq, end - begin, end, begin};
    r.hkv = kHkv;
    r.dk = kD;
    r.q = q.data() + begin * kD;
    r.q_head = kN * kD;
    r.q_row = kD;
    r.k = {halves ? static_cast<const void*>(half.data()) : k.data(), halves ? Dtype::f16 : Dtype::f32, kN * kD, kD, kD, 0, nullptr};
    return r;
  }
};

std::set<int> first(const ChannelMean& m, int layer, int head, int n) {
  const auto order = m.order(layer, head);
  return {order.begin(), order.begin() + n};
}

TEST(ChannelMean, FindsPlantedChannels) {
  const std::set<int> in_q = {3, 17, 30}, in_k = {0, 8, 31};
  const Planted p(in_q, in_k);
  for (const Per per : {Per::query_head, Per::kv_head}) {
    ChannelMean q(Of::query, per), k(Of::key, per), qk(Of::product, per);
    for (auto* m : {&q, &k, &qk}) ASSERT_TRUE(m->add(0, p.rows(0, Planted::kN)).ok());
    ASSERT_EQ(q.heads(), per == Per::kv_head ? 2 : 4);
    for (int h = 0; h < q.heads(); ++h) {
      EXPECT_EQ(first(q, 0, h, 3), in_q);
      EXPECT_EQ(first(k, 0, h, 3), in_k);
      std::set<int> both = in_q;
      both.insert(in_k.begin(), in_k.end());
      EXPECT_EQ(first(qk, 0, h, 6), both);
    }
  }
}

TEST(ChannelMean, EqualsTheFormula) {
  const Planted p({1}, {2});
  ChannelMean m(Of::product, Per::kv_head);
  ASSERT_TRUE(m.add(2, p.rows(0, Planted::kN)).ok());
  EXPECT_EQ(m.layers(), 3);
  EXPECT_EQ(m.tokens(), 0) << "two layers saw nothing";
  for (int g = 0; g < Planted::kHkv; ++g)
    for (int d = 0; d < Planted::kD; ++d) {
      double sum = 0;
      for (int h = 2 * g; h < 2 * g + 2; ++h)
        for (int i = 0; i < Planted::kN; ++i)
          sum += std::abs(static_cast<double>(p.q[static_cast<std::size_t>((h * Planted::kN + i) * Planted::kD + d)]) *
                          p.k[static_cast<std::size_t>((g * Planted::kN + i) * Planted::kD + d)]);
      EXPECT_NEAR(m.mean(2, g, d), sum / 2 / Planted::kN, 1e-9 * sum);
    }
}

TEST(ChannelMean, ChunksAndTypesOfTheCacheChangeNothing) {
  const Planted p({7}, {9});
  ChannelMean whole(Of::product, Per::query_head), parts(Of::product, Per::query_head);
  ASSERT_TRUE(whole.add(0, p.rows(0, Planted::kN)).ok());
  for (int begin = 0; begin < Planted::kN; begin += 37)
    ASSERT_TRUE(parts.add(0, p.rows(begin, std::min(begin + 37, Planted::kN), true)).ok());
  EXPECT_EQ(parts.tokens(), Planted::kN);
  for (int h = 0; h < 4; ++h)
    for (int d = 0; d < Planted::kD; ++d) EXPECT_NEAR(parts.mean(0, h, d), whole.mean(0, h, d), 1e-9);
}

TEST(ChannelMean, EverySampleCounts) {
  // The published script keeps the last sample only: here the first one alone has the heavy channel.
  const Planted with({4}, {4}, 1), without({}, {}, 2);
  ChannelMean m(Of::product, Per::kv_head);
  ASSERT_TRUE(m.add(0, with.rows(0, Planted::kN)).ok());
  ASSERT_TRUE(m.add(0, without.rows(0, Planted::kN)).ok());
  EXPECT_EQ(m.order(0, 0).front(), 4);
  EXPECT_EQ(m.tokens(), 2 * Planted::kN);
}

TEST(ChannelMean, CellsOutOfOrderAreReadByKeyNumber) {
  const Planted p({}, {6});
  std::vector<float> scattered(p.k.size());
  std::vector<std::int32_t> cell(Planted::kN);
  for (int j = 0; j < Planted::kN; ++j) cell[static_cast<std::size_t>(j)] = (j * 37 + 5) % Planted::kN;
  for (int g = 0; g < Planted::kHkv; ++g)
    for (int j = 0; j < Planted::kN; ++j)
      std::copy_n(&p.k[static_cast<std::size_t>((g * Planted::kN + j) * Planted::kD)], Planted::kD,
                  &scattered[static_cast<std::size_t>((g * Planted::kN + cell[static_cast<std::size_t>(j)]) * Planted::kD)]);
  ChannelMean a(Of::product, Per::kv_head), b(Of::product, Per::kv_head);
  auto rows = p.rows(10, 70);
  ASSERT_TRUE(a.add(0, rows).ok());
  rows.k.data = scattered.data();
  rows.k.cell_of_key = cell.data();
  ASSERT_TRUE(b.add(0, rows).ok());
  for (int d = 0; d < Planted::kD; ++d) EXPECT_EQ(a.mean(0, 1, d), b.mean(0, 1, d));
}

TEST(ChannelMean, GoesOnFromSavedSums) {
  const Planted p({4}, {5});
  ChannelMean whole(Of::key, Per::kv_head), before(Of::key, Per::kv_head), after(Of::key, Per::kv_head);
  ASSERT_TRUE(whole.add(0, p.rows(0, Planted::kN)).ok());
  ASSERT_TRUE(before.add(0, p.rows(0, 40)).ok());
  ASSERT_TRUE(after.load(nlohmann::json::parse(before.save().dump())).ok());
  ASSERT_TRUE(after.add(0, p.rows(40, Planted::kN)).ok());
  EXPECT_EQ(after.save(), whole.save());
  EXPECT_FALSE(ChannelMean(Of::query, Per::kv_head).load(before.save()).ok()) << "of another kind";
  for (const char* bad : {"null", "{}", "[]", R"({"of":1,"per":1,"heads":2,"channels":32,"layers":[{"tokens":5,"sum":[1]}]})",
                          R"({"of":1,"per":1,"heads":2,"channels":1,"layers":[{"tokens":5,"sum":[1,-1]}]})",
                          R"({"of":1,"per":1,"heads":-2,"channels":32,"layers":[]})"}) {
    ChannelMean m(Of::key, Per::kv_head);
    EXPECT_FALSE(m.load(nlohmann::json::parse(bad)).ok()) << bad;
  }
}

TEST(ChannelMean, RefusesLayersOfDifferentShape) {
  const Planted p({}, {});
  ChannelMean m(Of::key, Per::kv_head);
  ASSERT_TRUE(m.add(0, p.rows(0, 8)).ok());
  auto other = p.rows(0, 8);
  other.dk = 16;
  other.k.dim = 16;
  const Status refused = m.add(1, other);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().what.find("layer 1"), std::string::npos);
}

TEST(ChannelMean, MapsBetweenLayoutsOfTheRotation) {
  for (const int rotated : {2, 8, 64, 128}) {
    const int channels = rotated + 16;  // a part that is not rotated stays
    std::set<int> seen;
    for (int c = 0; c < channels; ++c) {
      const int i = to_interleaved(c, rotated);
      seen.insert(i);
      EXPECT_EQ(to_half_split(i, rotated), c);
      EXPECT_EQ(i, c < rotated ? 2 * c % rotated + 2 * c / rotated : c);
      if (c < rotated / 2) {
        EXPECT_EQ(to_interleaved(c + rotated / 2, rotated), i + 1) << "pairs stay pairs";
      }
    }
    EXPECT_EQ(static_cast<int>(seen.size()), channels);
  }
}

TEST(ChannelMean, OneListMappedSelectsTheSameInBothLayouts) {
  const Planted p({3, 17}, {3, 17});
  Planted other = p;  // the same numbers with channels where an interleaved checkpoint has them
  for (auto [from, to] : {std::pair{&p.q, &other.q}, std::pair{&p.k, &other.k}})
    for (std::size_t i = 0; i < from->size(); ++i) {
      const auto d = static_cast<std::int32_t>(i % Planted::kD);
      (*to)[i - static_cast<std::size_t>(d) + static_cast<std::size_t>(to_interleaved(d, Planted::kD))] = (*from)[i];
    }
  ChannelMean half(Of::product, Per::kv_head), inter(Of::product, Per::kv_head);
  ASSERT_TRUE(half.add(0, p.rows(0, Planted::kN)).ok());
  ASSERT_TRUE(inter.add(0, other.rows(0, Planted::kN)).ok());
  const auto a = half.order(0, 0), b = inter.order(0, 0);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_EQ(to_interleaved(a[i], Planted::kD), b[i]);
}

}  // namespace
}  // namespace lacuna::block
