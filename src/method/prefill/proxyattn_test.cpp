// SPDX-License-Identifier: Apache-2.0
// ProxyAttn: the proofs of its sheet.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_proxyattn();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

constexpr int kBlock = 64;

// The key blocks that the last row of row block u keeps; it sees all of its row block's.
std::vector<int> kept_blocks(const Plan& p, const Grid& g, int h, int u) {
  std::vector<int> out;
  const int last = std::min((u + 1) * kBlock, g.n_rows) - 1;
  for (int b = 0; b * kBlock <= g.first_key + last; ++b)
    if (keeps(p, g, h, last, b * kBlock)) out.push_back(b);
  return out;
}

// The formula, written a second time, for one proxy of query heads [first, first + together) and one of its heads.
struct Formula {
  std::vector<double> best, own;  // S of the proxy, and the head's own mass, by key block
  Formula(MethodLab& lab, int first, int together, int h, std::int64_t begin, std::int64_t end, int u, int stride) {
    const int group = lab.hq / lab.hkv, kv = first / group, kvs = std::max(1, together / group);
    const std::int64_t row = begin + u * kBlock, stop = std::min<std::int64_t>(row + kBlock, end);
    const auto blocks = static_cast<std::size_t>((stop + kBlock - 1) / kBlock);
    best.assign(blocks, -1e30);
    own.assign(blocks, 0.0);
    for (std::int64_t i = stop - 1; i >= row; i -= stride)
      for (std::int64_t j = 0; j <= i; ++j) {
        double s = 0;
        for (int c = 0; c < lab.d; ++c) {
          double q = 0, k = 0;
          for (int x = first; x < first + together; ++x) q += lab.q_at(x, i)[c];
          for (int x = kv; x < kv + kvs; ++x) k += lab.k_at(x, j)[c];
          s += q * k / together / kvs;
        }
        double& to = best[static_cast<std::size_t>(j / kBlock)];
        to = std::max(to, s);
      }
    double all = 0;
    for (std::int64_t j = 0; j < stop; ++j) {
      double mean = 0;
      for (std::int64_t i = row; i < stop; ++i) {
        double s = 0;
        for (int c = 0; c < lab.d; ++c) s += static_cast<double>(lab.q_at(h, i)[c]) * lab.k_at(h / group, j)[c];
        mean += s / std::sqrt(static_cast<double>(lab.d)) / static_cast<double>(stop - row);
      }
      own[static_cast<std::size_t>(j / kBlock)] += std::exp(mean);
      all += std::exp(mean);
    }
    for (double& x : own) x /= all;
  }
  int count(double mass) const {
    std::vector<double> sorted = own;
    std::sort(sorted.rbegin(), sorted.rend());
    double sum = 0;
    int n = 0;
    while (n < static_cast<int>(sorted.size()) && sum < mass) sum += sorted[static_cast<std::size_t>(n++)];
    return n;
  }
  // The blocks of the ranking, and those of the own rows.
  std::vector<int> kept(double mass, int first_own) const {
    std::vector<int> order(best.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return best[static_cast<std::size_t>(a)] > best[static_cast<std::size_t>(b)]; });
    std::vector<int> out(order.begin(), order.begin() + count(mass));
    for (int b = first_own; b < static_cast<int>(best.size()); ++b)
      if (std::find(out.begin(), out.end(), b) == out.end()) out.push_back(b);
    std::sort(out.begin(), out.end());
    return out;
  }
};

// head_group 1 and stride 1 among them: the ranking is then each head's own, by the maxima of its exact scores.
TEST(ProxyAttn, KeepsWhatTheFormulaKeeps) {
  struct Case { int group, together, stride, begin, end; };
  for (const Case& c : {Case{1, 1, 1, 0, 512}, {2, 2, 4, 0, 500}, {0, 2, 7, 64, 500}, {4, 4, 3, 37, 470}, {7, 4, 4, 0, 512}, {100, 8, 4, 0, 512}}) {
    MethodLab lab(8, 4, c.end, 16, 7);
    for (float& x : lab.q) x *= 3;
    auto p = lab.plan(*make(method_entry_proxyattn(), {{"mass", 0.6}, {"head_group", c.group}, {"stride", c.stride}, {"sink", 0}}), c.begin, c.end);
    ASSERT_TRUE(p.ok());
    ASSERT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
    const Grid g{8, c.end - c.begin, c.end, c.begin};
    for (int h = 0; h < 8; ++h)
      for (int u = 0; u * kBlock < g.n_rows; ++u) {
        const Formula f(lab, h / c.together * c.together, c.together, h, c.begin, c.end, u, c.stride);
        EXPECT_EQ(kept_blocks(p.value(), g, h, u), f.kept(0.6, (c.begin + u * kBlock) / kBlock)) << c.group << ' ' << h << ' ' << u;
      }
  }
}

TEST(ProxyAttn, AllMassIsDense) {
  MethodLab lab(2, 1, 400, 16);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_proxyattn(), {{"mass", 1}}), 0, 400).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_proxyattn()), 0, 100).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_proxyattn()), 399, 400).value()));
}

// Heads that are alike lose nothing by sharing, however many share.
TEST(ProxyAttn, HeadsThatAreAlikeLoseNothing) {
  constexpr int kN = 512;
  MethodLab lab(4, 2, kN, 16, 6);
  for (float& x : lab.q) x *= 3;
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 16; ++c) {
      for (int h = 1; h < 4; ++h) lab.q_at(h, i)[c] = lab.q_at(0, i)[c];
      lab.k_at(1, i)[c] = lab.k_at(0, i)[c];
    }
  const auto plan = [&](double heads) {
    return lab.plan(*make(method_entry_proxyattn(), {{"mass", 0.6}, {"head_group", heads}}), 0, kN).value();
  };
  const Plan apart = plan(1);
  const Grid g{4, kN, kN, 0};
  for (const double heads : {0, 2, 4}) {
    const Plan shared = plan(heads);
    for (int h = 0; h < 4; ++h)
      for (int u = 0; u < kN / kBlock; ++u) EXPECT_EQ(kept_blocks(shared, g, h, u), kept_blocks(apart, g, h, u)) << heads;
  }
}

// One key of a block carries all mass: its largest score shows the block, its mean key does not.
TEST(ProxyAttn, MaximaFindTheBlockOfOneHeavyKeyWhereMeansMissIt) {
  constexpr int kN = 1024, kHeavy = 210;
  MethodLab lab(2, 1, kN, 16, 8);
  for (int j = 0; j < kN; ++j)
    for (int c = 0; c < 16; ++c) {
      lab.k_at(0, j)[c] = c > 0 ? 0.0f : j == kHeavy ? 120.0f : j / kBlock == kHeavy / kBlock ? -4.0f : -1.5f;
      for (int h = 0; h < 2; ++h) lab.q_at(h, j)[c] = c == 0 ? 2.0f : 0.0f;
    }
  const Plan p = lab.plan(*make(method_entry_proxyattn(), {{"mass", 0.9}, {"sink", 0}}), 0, kN).value();
  const Grid g{2, kN, kN, 0};
  double heavy_mean = 0, other_mean = 0;
  for (int j = 0; j < kBlock; ++j) {
    heavy_mean += lab.k_at(0, kHeavy / kBlock * kBlock + j)[0] / kBlock;
    other_mean += lab.k_at(0, j)[0] / kBlock;
  }
  EXPECT_LT(heavy_mean, other_mean) << "by its mean key the block is the last of all";
  for (int u = kHeavy / kBlock + 1; u < kN / kBlock; ++u) {
    const std::vector<int> wanted{kHeavy / kBlock, u};
    for (int h = 0; h < 2; ++h) EXPECT_EQ(kept_blocks(p, g, h, u), wanted) << u;
  }
}

// Two heads of a proxy: the one that looks everywhere gets more blocks than the one that looks at one.
TEST(ProxyAttn, AFlatHeadGetsMoreBlocksThanAPeakedOne) {
  constexpr int kN = 1024;
  MethodLab lab(2, 1, kN, 16, 9);
  for (int c = 0; c < 16; ++c) lab.k_at(0, 70)[c] *= 4;
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < 16; ++c) {
      lab.q_at(0, i)[c] *= 0.01f;
      lab.q_at(1, i)[c] = lab.k_at(0, 70)[c] / 2;
    }
  const Plan p = lab.plan(*make(method_entry_proxyattn(), {{"mass", 0.9}, {"sink", 0}}), 0, kN).value();
  const Grid g{2, kN, kN, 0};
  for (int u = 4; u < kN / kBlock; ++u) {
    const auto flat = kept_blocks(p, g, 0, u), peaked = kept_blocks(p, g, 1, u);
    EXPECT_GE(flat.size(), static_cast<std::size_t>(u * 8 / 10)) << u;
    EXPECT_LE(peaked.size(), 2u) << u;
    for (const int b : peaked) EXPECT_TRUE(b == u || std::find(flat.begin(), flat.end(), b) != flat.end()) << "one ranking: " << b;
  }
}

TEST(ProxyAttn, NamesWhatDoesNotFit) {
  const auto method = make(method_entry_proxyattn(), {{"block", 96}});
  EXPECT_NE(method->check().error().what.find("proxyattn.block: got 96"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
