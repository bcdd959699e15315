// SPDX-License-Identifier: Apache-2.0
// Prism: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "method/params.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_prism();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

class SetText final : public ParamVisitor {
 public:
  SetText(std::string_view name, std::string value) : name_(name), value_(std::move(value)) {}
  void operator()(std::int64_t&, std::string_view, std::int64_t, std::int64_t, std::string_view) override {}
  void operator()(double&, std::string_view, double, double, std::string_view, bool) override {}
  void operator()(bool&, std::string_view, std::string_view) override {}
  void operator()(std::string& x, std::string_view name, std::string_view, std::string_view) override {
    if (name == name_) x = value_;
  }

 private:
  std::string_view name_;
  std::string value_;
};

// Key blocks that the last row of row block u keeps; it sees all of its row block's.
std::vector<int> kept_blocks(const Plan& p, const Grid& g, int h, int u, int block) {
  std::vector<int> out;
  const int last = std::min((u + 1) * block, g.n_rows) - 1;
  for (int b = 0; b * block <= g.first_key + last; ++b)
    if (keeps(p, g, h, last, b * block)) out.push_back(b);
  return out;
}

std::vector<double> mean_of(const float* x, int n, int d) {
  std::vector<double> m(static_cast<std::size_t>(d), 0.0);
  for (int i = 0; i < n; ++i)
    for (int c = 0; c < d; ++c) m[static_cast<std::size_t>(c)] += static_cast<double>(x[i * d + c]) / n;
  return m;
}

double rms(const std::vector<std::vector<double>>& means, const std::vector<int>& band) {
  double sum = 0;
  for (const auto& m : means)
    for (const int c : band) sum += m[static_cast<std::size_t>(c)] * m[static_cast<std::size_t>(c)];
  return std::sqrt(sum / static_cast<double>(means.size() * band.size()));
}

// The blocks of one band for row block u of a prompt in one call, by the formula. `t`: the temperature, 0 = from energy.
std::vector<int> band_blocks(MethodLab& lab, int h, int u, int block, const std::vector<int>& band, double mass, double t) {
  const int kv = h / (lab.hq / lab.hkv), n = static_cast<int>(lab.n), blocks = (n + block - 1) / block;
  std::vector<int> all(static_cast<std::size_t>(lab.d));
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::vector<double>> q, k;
  for (int b = 0; b < blocks; ++b) {
    const int size = std::min(block, n - b * block);
    q.push_back(mean_of(lab.q_at(h, b * block), size, lab.d));
    k.push_back(mean_of(lab.k_at(kv, b * block), size, lab.d));
  }
  const double share = static_cast<double>(band.size()) / lab.d;
  if (t == 0) t = std::sqrt(share) * rms(q, band) / rms(q, all) * rms(k, band) / rms(k, all);
  std::vector<double> p;
  double sum = 0;
  for (int b = 0; b <= u; ++b) {
    double s = 0;
    const auto &mean_q = q[static_cast<std::size_t>(u)], &mean_k = k[static_cast<std::size_t>(b)];
    for (const int c : band) s += mean_q[static_cast<std::size_t>(c)] * mean_k[static_cast<std::size_t>(c)];
    p.push_back(std::exp(s / (std::sqrt(static_cast<double>(band.size())) * t)));
    sum += p.back();
  }
  std::vector<int> order(p.size()), out;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)]; });
  double before = 0;
  for (const int b : order) {
    if (before >= mass * sum) break;
    before += p[static_cast<std::size_t>(b)];
    out.push_back(b);
  }
  return out;
}

std::vector<int> both(std::vector<int> a, const std::vector<int>& b, int own) {
  a.insert(a.end(), b.begin(), b.end());
  a.push_back(own);
  std::sort(a.begin(), a.end());
  a.erase(std::unique(a.begin(), a.end()), a.end());
  return a;
}

TEST(Prism, KeepsWhatTheFormulaKeeps) {
  constexpr int kN = 500, kBlock = 32;
  // D = 16, rope = halves: pairs (c, c + 8). fast 0.5: 4 pairs; slow 0.75: 6 pairs.
  const std::vector<int> fast{0, 1, 2, 3, 8, 9, 10, 11}, slow{2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15};
  MethodLab lab(4, 2, kN, 16, 3);
  for (float& x : lab.q) x *= 12;  // means of 32 are small
  for (const double norm : {0.0, 1.0}) {
    auto p = lab.plan(*make(method_entry_prism(), {{"fast_mass", 0.5}, {"slow_mass", 0.4}, {"block", kBlock}, {"sink", 0}, {"norm", norm}}), 0, kN);
    ASSERT_TRUE(p.ok());
    ASSERT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
    const Grid g{4, kN, kN, 0};
    for (int h = 0; h < 4; ++h)
      for (int u = 0; u < kN / kBlock; ++u)
        EXPECT_EQ(kept_blocks(p.value(), g, h, u, kBlock),
                  both(band_blocks(lab, h, u, kBlock, fast, 0.5, norm), band_blocks(lab, h, u, kBlock, slow, 0.4, norm), u))
            << norm << ' ' << h << ' ' << u;
  }
}

// Both bands of all channels at temperature 1: plain mean pooling.
TEST(Prism, WholeBandsArePlainMeanPooling) {
  constexpr int kN = 512, kBlock = 64;
  std::vector<int> all(16);
  std::iota(all.begin(), all.end(), 0);
  MethodLab lab(2, 1, kN, 16, 4);
  for (float& x : lab.q) x *= 12;
  const auto method = make(method_entry_prism(), {{"fast", 1}, {"slow", 1}, {"fast_mass", 0.6}, {"slow_mass", 0.6}, {"sink", 0}, {"norm", 1}});
  const Plan p = lab.plan(*method, 0, kN).value();
  const Grid g{2, kN, kN, 0};
  for (int h = 0; h < 2; ++h)
    for (int u = 0; u < kN / kBlock; ++u) EXPECT_EQ(kept_blocks(p, g, h, u, kBlock), both(band_blocks(lab, h, u, kBlock, all, 0.6, 1), {}, u)) << u;
}

TEST(Prism, AllMassIsDense) {
  MethodLab lab(2, 1, 400, 16);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_prism(), {{"fast_mass", 1}, {"slow_mass", 1}}), 0, 400).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_prism()), 0, 100).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_prism()), 399, 400).value()));
}

// The sheet's slash: in the fastest pairs every row looks five blocks back, in the slowest each block has noise of its own.
// `pairs`: as rope = pairs lays the same channels.
MethodLab slash_lab(bool pairs) {
  constexpr int kD = 128, kN = 32 * 128, kBack = 5 * 128;
  MethodLab lab(1, 1, kN, kD, 11);
  Rng rng(12);
  std::fill(lab.q.begin(), lab.q.end(), 0.0f);
  std::fill(lab.k.begin(), lab.k.end(), 0.0f);
  const auto at = [&](int pair, int half) { return pairs ? 2 * pair + half : pair + half * kD / 2; };
  for (int block = 0; block < 32; ++block) {
    float noise[2][16][2];
    for (auto& of : noise)
      for (auto& pair : of)
        for (float& x : pair) x = static_cast<float>(rng.normal());
    for (int i = block * 128; i < (block + 1) * 128; ++i)
      for (int side = 0; side < 2; ++side) {
        float* x = side == 0 ? lab.q_at(0, i) : lab.k_at(0, i);
        for (int p = 0; p < 16; ++p) {
          const double angle = (i + (side == 0 ? 0 : kBack)) * std::pow(1e4, -2.0 * p / kD), c = std::cos(angle), s = std::sin(angle);
          x[at(p, 0)] = static_cast<float>(1.5 * (c - s));  // both channels are 1.5 before the turn
          x[at(p, 1)] = static_cast<float>(1.5 * (c + s));
          for (int half = 0; half < 2; ++half) x[at(48 + p, half)] = noise[side][p][half];
        }
      }
  }
  return lab;
}

// Of row blocks 5 .. 31, the share in which the block five back is the best of either band.
double found(MethodLab& lab, double fast, double slow, double norm, const char* rope = "halves") {
  auto method = make(method_entry_prism(), {{"fast", fast}, {"slow", slow}, {"fast_mass", 1e-9}, {"slow_mass", 1e-9},
                                            {"norm", norm}, {"block", 128}, {"sink", 0}});
  SetText set("rope", rope);
  method->params(set);
  const Plan p = lab.plan(*method, 0, lab.n).value();
  const Grid g{1, static_cast<std::int32_t>(lab.n), lab.n, 0};
  int hits = 0;
  for (int u = 5; u < 32; ++u) hits += keeps(p, g, 0, u * 128 + 127, std::int64_t{u - 5} * 128);
  return hits / 27.0;
}

TEST(Prism, TheFastBandFindsASlashThatMeansOfAllChannelsLose) {
  MethodLab lab = slash_lab(false);
  EXPECT_EQ(found(lab, 0.5, 0.25, 0), 1.0);
  EXPECT_LT(found(lab, 1, 1, 1), 0.3) << "plain mean pooling";
  MethodLab other = slash_lab(true);
  EXPECT_EQ(found(other, 0.5, 0.25, 0, "pairs"), 1.0);
  EXPECT_LT(found(lab, 0.5, 0.25, 0, "pairs"), 1.0) << "the wrong layout mixes the bands";
}

// Without the temperature the slash's block is still the best, but barely: its mass needs nearly all blocks.
TEST(Prism, TheTemperatureGivesContrastBack) {
  MethodLab lab = slash_lab(false);
  const auto blocks = [&](double norm) {
    auto method = make(method_entry_prism(), {{"fast", 0.5}, {"slow", 0.25}, {"fast_mass", 0.3}, {"slow_mass", 1e-9},
                                              {"norm", norm}, {"block", 128}, {"sink", 0}});
    const Plan p = lab.plan(*method, 0, lab.n).value();
    const Grid g{1, static_cast<std::int32_t>(lab.n), lab.n, 0};
    return kept_blocks(p, g, 0, 31, 128).size();
  };
  EXPECT_LE(blocks(0), 6u);
  EXPECT_GE(blocks(1), 9u);
}

// A direction that a block shares with the rows in slow channels is found by the slow band.
TEST(Prism, TheSlowBandFindsWhatABlockIsAbout) {
  constexpr int kN = 1024, kBlock = 64, kAbout = 5;
  MethodLab lab(1, 1, kN, 32, 13);
  for (int i = 0; i < kN; ++i) lab.q_at(0, i)[14] += 4, lab.k_at(0, i)[14] += i / kBlock == kAbout ? 4.0f : 0.0f;
  const Plan p = lab.plan(*make(method_entry_prism(), {{"fast_mass", 1e-9}, {"slow", 0.5}, {"slow_mass", 1e-9}, {"sink", 0}}), 0, kN).value();
  const Grid g{1, kN, kN, 0};
  for (int i = (kAbout + 1) * kBlock; i < kN; ++i) EXPECT_TRUE(keeps(p, g, 0, i, kAbout * kBlock)) << i;
}

// Queries four times as long are scores four times as large and nothing else: the temperature stays as it is.
TEST(Prism, TheTemperatureDoesNotSeeTheSizeOfQueriesOrKeys) {
  constexpr int kN = 512;
  MethodLab lab(1, 1, kN, 16, 14), long_queries(1, 1, kN, 16, 14), long_keys(1, 1, kN, 16, 14);
  for (MethodLab* each : {&lab, &long_queries, &long_keys})
    for (float& x : each->q) x *= 12;  // means of 64 are small
  for (float& x : long_queries.q) x *= 4;
  for (float& x : long_keys.k) x *= 4;
  const auto method = make(method_entry_prism(), {{"fast_mass", 0.5}, {"slow_mass", 0.5}});
  AttentionView x = lab.view(0, kN);
  const Plan soft = method->plan(x, lab.context).value();
  x.scale *= 4;
  const Plan sharp = method->plan(x, lab.context).value();
  EXPECT_NE(std::get<BlockMap>(soft.pattern()).cols, std::get<BlockMap>(sharp.pattern()).cols);
  for (MethodLab* other : {&long_queries, &long_keys})
    EXPECT_EQ(std::get<BlockMap>(other->plan(*method, 0, kN).value().pattern()).cols, std::get<BlockMap>(sharp.pattern()).cols);
}

// With a temperature that is told, no row's blocks depend on what comes after its block.
TEST(Prism, AToldTemperatureIsCausal) {
  constexpr int kN = 512, kBlock = 64;
  MethodLab lab(2, 1, kN, 16, 15);
  for (float& x : lab.q) x *= 12;
  const auto method = make(method_entry_prism(), {{"fast_mass", 0.5}, {"slow_mass", 0.5}, {"norm", 1}});
  const Plan whole = lab.plan(*method, 0, kN).value(), first = lab.plan(*method, 0, 256).value(), second = lab.plan(*method, 256, kN).value();
  const Grid g{2, kN, kN, 0}, g1{2, 256, 256, 0}, g2{2, 256, kN, 256};
  for (int h = 0; h < 2; ++h)
    for (int u = 0; u < 8; ++u)
      EXPECT_EQ(kept_blocks(whole, g, h, u, kBlock), u < 4 ? kept_blocks(first, g1, h, u, kBlock) : kept_blocks(second, g2, h, u - 4, kBlock)) << u;
}

TEST(Prism, NamesWhatDoesNotFit) {
  EXPECT_NE(make(method_entry_prism(), {{"block", 96}})->check().error().what.find("prism.block: got 96"), std::string::npos);
  EXPECT_NE(make(method_entry_prism(), {{"rotary", 7}})->check().error().what.find("prism.rotary: got 7"), std::string::npos);
  MethodLab lab(1, 1, 300, 16);
  const auto p = lab.plan(*make(method_entry_prism(), {{"rotary", 18}}), 0, 300);
  ASSERT_FALSE(p.ok());
  EXPECT_NE(p.error().what.find("prism.rotary: got 18"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
