// SPDX-License-Identifier: Apache-2.0
// SpargeAttn: the proofs of its sheet. What is skipped inside kernels is tested in test/unit/pv_skip_test.cpp.
#include <gtest/gtest.h>

#include "block/budget/guarded_blocks.h"
#include "block/calibrate/guard_search.h"
#include "block/estimate/self_similarity.h"
#include "method/calibrator.h"
#include "method/profile.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_spargeattn();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

std::unique_ptr<Method> with(std::initializer_list<std::pair<const char*, double>> values) {
  return make(method_entry_spargeattn(), values);
}
std::unique_ptr<Method> keeping(double keep, double similarity, std::int64_t block = 32) {
  auto m = with({{"keep", keep}, {"similarity", similarity}, {"block", double(block)}, {"row_block", double(block)}, {"sink", 0},
                 {"pv_skip", 1000}});
  struct Mode final : ParamVisitor {
    void operator()(std::int64_t&, std::string_view, std::int64_t, std::int64_t, std::string_view) override {}
    void operator()(double&, std::string_view, double, double, std::string_view, bool) override {}
    void operator()(bool&, std::string_view, std::string_view) override {}
    void operator()(std::string& x, std::string_view name, std::string_view, std::string_view) override {
      if (name == "mode") x = "keep";
    }
  } mode;
  m->params(mode);
  return m;
}

double density(const Plan& p, const Grid& g, std::int32_t h) {
  double kept = 0, all = 0;
  for (std::int32_t i = 0; i < g.n_rows; ++i)
    for (std::int64_t j = 0; j <= g.first_key + i; ++j, ++all) kept += keeps(p, g, h, i, j);
  return kept / all;
}

TEST(SpargeAttn, AllMassAllBlocksAndNoTrustAreDense) {
  MethodLab lab(2, 1, 400, 16, 2);
  const Grid g{2, 400, 400, 0};
  EXPECT_TRUE(is_dense(lab.plan(*with({{"mass", 1}, {"pv_skip", 1000}}), 0, 400).value()));
  EXPECT_TRUE(is_dense(lab.plan(*keeping(1, -1), 0, 400).value()));
  EXPECT_DOUBLE_EQ(density(lab.plan(*with({{"mass", 0.1}, {"similarity", 1}}), 0, 400).value(), g, 0), 1.0);
  EXPECT_LT(density(lab.plan(*with({{"mass", 0.1}, {"similarity", -1}, {"block", 32}}), 0, 400).value(), g, 0), 0.5);
}

// sim: 1 where all keys are one, about 1/n for random ones, 0 where they cancel.
TEST(SpargeAttn, SelfSimilarityIsOneForIdenticalKeysAndOneNthForRandomOnes) {
  constexpr int kBlock = 64, kD = 64;
  MethodLab lab(2, 1, 3 * kBlock + 20, kD, 3);
  Rng rng(5);
  for (int i = 0; i < kBlock; ++i)
    for (int c = 0; c < kD; ++c) {
      lab.k_at(0, i)[c] = static_cast<float>(c + 1);                         // identical
      lab.k_at(0, kBlock + i)[c] = rng.below(2) ? 1.0f : -1.0f;              // random signs
      lab.k_at(0, 2 * kBlock + i)[c] = (i % 2 ? 1.0f : -1.0f) * (1.0f + c);  // half one way, half the other
    }
  const auto x = lab.view(0, lab.n);
  const auto alike = block::self_similarity(x, kBlock, block::key_sums(x, kBlock, lab.context), false, lab.context);
  ASSERT_EQ(alike.key_blocks, 4);
  EXPECT_NEAR(alike.of_keys(0)[0], 1.0, 1e-5);
  EXPECT_NEAR(alike.of_keys(0)[1], 1.0 / kBlock, 0.7 / kBlock);
  EXPECT_NEAR(alike.of_keys(0)[2], 0.0, 1e-5);
  double want = 0;  // the last, short block and a block of rows by the definition, pair by pair
  const auto by_definition = [&](auto at, std::int64_t first, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = first; i < first + n; ++i)
      for (std::int64_t j = first; j < first + n; ++j) {
        double dot = 0, a = 0, b = 0;
        for (int c = 0; c < kD; ++c) {
          dot += static_cast<double>(at(i)[c]) * at(j)[c];
          a += static_cast<double>(at(i)[c]) * at(i)[c];
          b += static_cast<double>(at(j)[c]) * at(j)[c];
        }
        sum += dot / std::sqrt(a * b);
      }
    return sum / static_cast<double>(n * n);
  };
  want = by_definition([&](std::int64_t j) { return lab.k_at(0, j); }, 3 * kBlock, 20);
  EXPECT_NEAR(alike.of_keys(0)[3], want, 1e-5);
  EXPECT_NEAR(alike.of_rows(1, 2), by_definition([&](std::int64_t i) { return lab.q_at(1, i); }, 2 * kBlock, kBlock), 1e-5);
}

// A large common part makes all keys look alike; without their mean they are told apart.
TEST(SpargeAttn, SmoothingLooksThroughWhatAllKeysHaveInCommon) {
  MethodLab lab(1, 1, 512, 32, 8);
  for (std::int64_t j = 0; j < 512; ++j)
    for (int c = 0; c < 32; ++c) lab.k_at(0, j)[c] += 30.0f;
  const auto x = lab.view(0, 512);
  for (int b = 0; b < 8; ++b) {
    EXPECT_GT(block::self_similarity(x, 64, block::key_sums(x, 64, lab.context), false, lab.context).of_keys(0)[b], 0.9);
    EXPECT_LT(block::self_similarity(x, 64, block::key_sums(x, 64, lab.context), true, lab.context).of_keys(0)[b], 0.1);
  }
}

// The choice by its definition, block by block, for calls of any residue.
TEST(SpargeAttn, KeepsWhatItsRulesSay) {
  for (const std::int64_t begin : {0, 32, 57})
    for (const bool by_mass : {true, false}) {
      constexpr int kBlock = 32;
      const std::int64_t end = begin + 700;
      MethodLab lab(2, 2, end, 16, static_cast<std::uint64_t>(begin + 6));
      for (std::int64_t j = 0; j < end; ++j)  // blocks lean their way more or less
        for (int h = 0; h < 2; ++h)
          for (int c = 0; c < 16; ++c) {
            const float lean = static_cast<float>((j / kBlock * 5 + c * 3) % 7 - 3) * (j / kBlock % 3 == 0 ? 0.0f : j / kBlock % 3 == 1 ? 1.0f : -1.0f);
            lab.k_at(h, j)[c] += lean;
            lab.q_at(h, j)[c] += 0.5f * lean;
          }
      const double kSimilarity = 0.4, kMass = 0.4, kKeep = 0.2;
      auto m = by_mass ? with({{"mass", kMass}, {"similarity", kSimilarity}, {"block", kBlock}, {"row_block", kBlock}, {"sink", 0}})
                       : keeping(kKeep, kSimilarity, kBlock);
      const auto x = lab.view(begin, end);
      const auto p = m->plan(x, lab.context);
      ASSERT_TRUE(p.ok());
      const auto& map = std::get<BlockMap>(p.value().pattern());
      ASSERT_TRUE(map.check().ok());
      const auto alike = block::self_similarity(x, kBlock, block::key_sums(x, kBlock, lab.context), true, lab.context);
      int untrusted_rows = 0, untrusted_keys = 0, dropped = 0;
      for (int h = 0; h < 2; ++h)
        for (int u = 0; u < map.q_blocks(); ++u) {
          const std::int64_t first = begin + u * kBlock, last = std::min<std::int64_t>(first + kBlock, end) - 1;
          std::vector<std::pair<double, int>> order;
          double top = -1e30, total = 0;
          for (int b = 0; b <= last / kBlock; ++b) {
            double sum = 0;
            int n = 0;
            for (std::int64_t i = first; i <= last; ++i)
              for (std::int64_t j = b * kBlock; j <= std::min<std::int64_t>(b * kBlock + kBlock - 1, last); ++j, ++n) sum += lab.logit(h, i, j);
            if (alike.of_keys(h)[b] > kSimilarity) order.push_back({sum / n, b});
            top = std::max(top, sum / n);
          }
          for (auto& [s, b] : order) total += s = std::exp(s - top);
          std::sort(order.rbegin(), order.rend());
          std::size_t count = 0;
          if (by_mass)
            for (double sum = 0; count < order.size() && (sum += order[count].first) <= kMass * total;) ++count;
          else
            count = static_cast<std::size_t>(kKeep * static_cast<double>(alike.key_blocks));
          count = std::min(std::max<std::size_t>(count, 1), order.size());
          for (int b = 0; b <= last / kBlock; ++b) {
            bool want = b >= first / kBlock || !(alike.of_keys(h)[b] > kSimilarity) || !(alike.of_rows(h, u) > kSimilarity);
            for (std::size_t i = 0; i < count; ++i) want = want || order[i].second == b;
            const auto row = map.row(h, u);
            EXPECT_EQ(std::binary_search(row.begin(), row.end(), b), want) << "head " << h << " block " << u << " " << b;
            untrusted_keys += !(alike.of_keys(h)[b] > kSimilarity);
            dropped += !want;
          }
          untrusted_rows += !(alike.of_rows(h, u) > kSimilarity);
          EXPECT_LE(map.row(h, u).back(), last / kBlock);
        }
      EXPECT_GT(untrusted_rows, 0);
      EXPECT_GT(untrusted_keys, 0);
      EXPECT_GT(dropped, 20) << "little was left out: the test proves little";
    }
}

// cdf mode stops before the sum passes the mass: 0.5 + 0.3 > 0.7, so one block; never none.
TEST(SpargeAttn, MassIsNotPassedAndOneBlockIsKept) {
  const float score[] = {std::log(0.3f), std::log(0.5f), std::log(0.2f), 0.0f};
  const float alike[] = {1, 1, 1, 1};
  block::GuardWork work;
  const auto kept = [&](block::GuardRule rule, std::int32_t own = 3) {
    std::uint8_t set[4] = {9, 9, 9, 9};
    block::keep_guarded(rule, {.score = score, .scale = 1, .blocks = 3, .own = own, .call_blocks = 4, .rows_alike = 1, .keys_alike = alike},
                        work, set);
    EXPECT_EQ(set[3], 9) << "not a block of this row";
    return std::vector<int>(set, set + 3);
  };
  EXPECT_EQ(kept({.mass = 0.7}), (std::vector<int>{0, 1, 0}));
  EXPECT_EQ(kept({.mass = 0.81}), (std::vector<int>{1, 1, 0}));
  EXPECT_EQ(kept({.mass = 0.0}), (std::vector<int>{0, 1, 0})) << "at least one";
  EXPECT_EQ(kept({.mass = 1.0}), (std::vector<int>{1, 1, 1}));
  EXPECT_EQ(kept({.by = block::GuardRule::By::keep, .keep = 0.74}), (std::vector<int>{1, 1, 0})) << "of the call's 4 blocks, rounded down";
  EXPECT_EQ(kept({.by = block::GuardRule::By::keep, .keep = 0.01}), (std::vector<int>{0, 1, 0}));
  EXPECT_EQ(kept({.mass = 0.0}, 2), (std::vector<int>{0, 1, 1})) << "its own keys";
  EXPECT_EQ(kept({.mass = 0.0, .sinks = 1}), (std::vector<int>{1, 1, 0}));
  EXPECT_EQ(kept({.similarity = 1.0, .mass = 0.0}), (std::vector<int>{1, 1, 1}));
}

// One key block holds two directions whose mean says nothing; half of the rows look for one of them.
TEST(SpargeAttn, TheGuardFindsWhatMeansHide) {
  constexpr int kN = 512, kBlock = 64, kD = 32;
  MethodLab lab(1, 1, kN, kD, 12);
  for (int i = 0; i < kN; ++i)
    for (int c = 0; c < kD; ++c) {
      const int b = i / kBlock;
      lab.k_at(0, i)[c] = (c == b ? 4.0f : 0.0f) + 0.01f * lab.k_at(0, i)[c];
      lab.q_at(0, i)[c] = (c == 20 || c == 0 ? 6.0f : 0.0f) + 0.01f * lab.q_at(0, i)[c];
      if (b == 3) lab.k_at(0, i)[c] = c == 20 ? (i % 2 ? 8.0f : -8.5f) : 0.0f;
    }
  // The error of a plan, over the rows after the mixed block, and its kept pairs.
  const auto run = [&](double similarity, double mass) {
    const Plan p = lab.plan(*with({{"similarity", similarity}, {"mass", mass}, {"block", kBlock}, {"row_block", kBlock}, {"smooth", 0}, {"sink", 0}}), 0, kN).value();
    const Grid g{1, kN, kN, 0};
    double error = 0, size = 0;
    for (int i = 5 * kBlock; i < kN; i += 7) {
      const auto some = lab.attend(0, i, [&](std::int64_t j) { return keeps(p, g, 0, i, j); }), all = lab.attend(0, i, [](std::int64_t) { return true; });
      for (int c = 0; c < kD; ++c) {
        error += std::abs(some[static_cast<std::size_t>(c)] - all[static_cast<std::size_t>(c)]);
        size += std::abs(all[static_cast<std::size_t>(c)]);
      }
    }
    return std::pair{error / size, density(p, g, 0)};
  };
  const auto guarded = run(0.5, 0.3);
  double best = 1e30;  // of plain pooling that keeps no less
  for (const double mass : {0.3, 0.9, 0.97, 0.99, 0.999}) {
    const auto plain = run(-1, mass);
    if (plain.second >= guarded.second) {
      best = plain.first;
      break;
    }
  }
  ASSERT_LT(best, 1e30) << "no plain plan keeps as much";
  EXPECT_LE(guarded.first, best);
  EXPECT_LT(guarded.first, 0.05);
  EXPECT_GT(run(-1, 0.3).first, 0.3) << "the case is one that pooling cannot see";
}

// The bounds that a profile has for each head are those of the plan; heads that must stay dense are.
TEST(SpargeAttn, AProfileSpeaksForEachHead) {
  MethodLab lab(3, 3, 1024 + 256, 32, 21);
  // Head 0: row blocks look at one of the key blocks that lean their way. Head 1: noise. Head 2: as head 0.
  for (std::int64_t i = 0; i < lab.n; ++i)
    for (const int h : {0, 2})
      for (int c = 0; c < 32; ++c) {
        lab.k_at(h, i)[c] = 0.2f * lab.k_at(h, i)[c] + (c == i / 64 ? 6.0f : 0.0f);
        lab.q_at(h, i)[c] = 0.2f * lab.q_at(h, i)[c] + (c == i / 64 * 7 % 11 ? 9.0f : 0.0f);
      }
  auto m = with({{"row_block", 64}, {"sink", 0}});
  const auto watch = m->calibrator();
  EXPECT_GE(watch->prompt_tokens(), 2048);  // what the command reads at once has inputs of 1024 keys
  ASSERT_NE(watch, nullptr);
  EXPECT_NE(watch->finish().error().what.find("text too short: got 0 tokens"), std::string::npos);
  for (int layer = 0; layer < 2; ++layer)
    for (int input = 0; input < 2; ++input) ASSERT_TRUE(watch->observe(lab.view(1024, 1280, layer), lab.context).ok());
  const auto again = m->calibrator();
  ASSERT_TRUE(again->load(watch->save()).ok());
  const auto data = again->finish();
  ASSERT_TRUE(data.ok()) << data.error().what;
  EXPECT_EQ(data.value(), watch->finish().value());
  Profile p;
  p.slug = "spargeattn";
  p.model.n_layers = lab.n_layers;
  p.model.hq = p.model.hkv = 3;
  p.model.dk = p.model.dv = 32;
  p.data = data.value();
  auto tuned = with({{"row_block", 64}, {"sink", 0}});
  ASSERT_TRUE(tuned->use(p).ok()) << tuned->use(p).error().what;
  const Grid g{3, 256, 1280, 1024};
  for (int layer = 0; layer < 2; ++layer) {
    const Plan plan = lab.plan(*tuned, 1024, 1280, layer).value();
    EXPECT_EQ(plan.route(1), kRouteFull) << "nothing to leave out in noise";
    ASSERT_EQ(plan.pv_skip.size(), 3u);
    double error = 0, size = 0;
    for (int i = 64; i < 256; i += i == 124 ? 68 : 4) {  // the sampled rows of row blocks 1 and 3
      const auto some = lab.attend(0, 1024 + i, [&](std::int64_t j) { return keeps(plan, g, 0, i, j); });
      const auto all = lab.attend(0, 1024 + i, [](std::int64_t) { return true; });
      for (int c = 0; c < 32; ++c) {
        error += std::abs(some[static_cast<std::size_t>(c)] - all[static_cast<std::size_t>(c)]);
        size += std::abs(all[static_cast<std::size_t>(c)]);
      }
    }
    EXPECT_LT(density(plan, g, 0), 0.6);
    EXPECT_LT(error / size, 0.07);
    EXPECT_LE(plan.pv_skip[0], 50.0f);
  }
  EXPECT_TRUE(is_dense(lab.plan(*tuned, 1024, 1280, 2).value())) << "a layer that was not seen stays dense";

  const auto refused = [&](auto change, const char* part, std::initializer_list<std::pair<const char*, double>> values = {}) {
    Profile bad = p;
    change(bad);
    auto other = with({{"row_block", 64}, {"sink", 0}});
    if (values.size() > 0) other = with(values);
    const Status s = other->use(bad);
    ASSERT_FALSE(s.ok()) << part;
    EXPECT_NE(s.error().what.find(part), std::string::npos) << s.error().what;
  };
  refused([](Profile& x) { x.data["heads"] = 4; }, "data.heads: got 4, need 3");
  refused([](Profile& x) { x.data["layers"] = 3; }, "data.layers: got 3, need 4");
  refused([](Profile& x) { x.data.erase("mass"); }, "data.mass");
  refused([](Profile& x) { x.data["mass"][1] = 1.5; }, "data.mass[1]");
  refused([](Profile& x) { x.data["similarity"].erase(0); }, "data.similarity");
  refused([](Profile& x) { x.data["pv_skip"][0] = -1; }, "data.pv_skip[0]");
  refused([](Profile&) {}, "spargeattn.block: got 32, need 64: the profile was made with it", {{"block", 32}, {"row_block", 64}});
  refused([](Profile&) {}, "spargeattn.smooth: got 0, need 1", {{"smooth", 0}, {"row_block", 64}});
}

TEST(SpargeAttn, RecordsOfSeveralInputsAreBinned) {
  block::GuardRecords r;
  const auto add = [&](double similarity, double mass, double pv_skip, double sparsity) {
    const block::GuardFound f[] = {{similarity, mass, pv_skip, sparsity}};
    ASSERT_TRUE(r.add(0, f).ok());
  };
  add(0.5, 0.9, 12, 0.4);
  add(0.5625, 0.8, 15, 0.3);  // the same bin of 1/8
  add(-0.25, 0.99, 3, 0.6);   // a sparser input, but less in all
  const auto f = r.choose(0, 0);
  EXPECT_EQ(f.similarity, 0.5625);
  EXPECT_EQ(f.mass, 0.9);
  EXPECT_EQ(f.pv_skip, 15);
  EXPECT_EQ(r.choose(5, 0).mass, 1) << "a layer that nobody saw";
  for (int i = 0; i < 12; ++i) add(0.5, 0.9, 12, 0.0);
  EXPECT_EQ(r.choose(0, 0).mass, 1) << "mean sparsity below 0.1";
  EXPECT_EQ(r.choose(0, 0).similarity, 1);
  const block::GuardFound two[2] = {};
  EXPECT_FALSE(r.add(1, two).ok());
  block::GuardRecords loaded;
  ASSERT_TRUE(loaded.load(r.save()).ok());
  EXPECT_EQ(loaded.save(), r.save());
  for (const char* bad : {"1", "{}", R"({"heads":1,"layers":[[1]]})", R"({"heads":1,"layers":[[[0,0,0,99]]]})", R"({"heads":2,"layers":[[[0,0,0,0]]]})"})
    EXPECT_FALSE(loaded.load(nlohmann::json::parse(bad)).ok()) << bad;
  EXPECT_EQ(loaded.save(), r.save()) << "a bad state changes nothing";
}

TEST(SpargeAttn, GoesDenseWithAReason) {
  MethodLab lab(1, 1, 600, 8);
  const auto dense = [&](std::initializer_list<std::pair<const char*, double>> values, std::int64_t begin, std::int64_t end) {
    auto p = lab.plan(*with(values), begin, end);
    return p.ok() && is_dense(p.value()) && !p.value().why.empty();
  };
  EXPECT_TRUE(dense({}, 0, 127)) << "fewer than two blocks";
  EXPECT_TRUE(dense({}, 599, 600)) << "decode";
  EXPECT_TRUE(dense({}, 580, 600)) << "few rows";
  EXPECT_FALSE(dense({}, 0, 600));
}

TEST(SpargeAttn, SkipsAreThePlans) {
  MethodLab lab(2, 1, 512, 16, 4);
  EXPECT_TRUE(lab.plan(*with({{"pv_skip", 1000}, {"similarity", -1}}), 0, 512).value().pv_skip.empty());
  EXPECT_EQ(lab.plan(*with({{"pv_skip", 7}, {"similarity", -1}}), 0, 512).value().pv_skip, (std::vector<float>{7, 7}));
  const Plan all = lab.plan(*with({{"pv_skip", 7}, {"mass", 1}}), 0, 512).value();
  EXPECT_FALSE(is_dense(all)) << "tiles may be left out of everything";
  EXPECT_TRUE(std::holds_alternative<Dense>(all.pattern()));
}

TEST(SpargeAttn, NumbersThatAreNoneKeepEverything) {
  MethodLab lab(1, 1, 512, 8);
  auto m = with({{"similarity", -1}, {"mass", 0.1}, {"block", 32}, {"row_block", 32}, {"smooth", 0}});
  lab.q_at(0, 300)[0] = NAN;
  lab.k_at(0, 100)[0] = INFINITY;
  auto p = lab.plan(*m, 0, 512);
  ASSERT_TRUE(p.ok());
  const auto& map = std::get<BlockMap>(p.value().pattern());
  ASSERT_TRUE(map.check().ok());
  EXPECT_EQ(map.row(0, 300 / 32).size(), 300u / 32 + 1) << "a row block that cannot be judged";
  for (int u = 4; u < 16; ++u) EXPECT_TRUE(keeps(p.value(), {1, 512, 512, 0}, 0, u * 32, 100)) << "a key block that cannot";
  EXPECT_LT(map.row(0, 15).size(), 12u);
}

TEST(SpargeAttn, ChecksItsParametersAndPresets) {
  EXPECT_NE(with({{"block", 48}})->check().error().what.find("spargeattn.block: got 48"), std::string::npos);
  EXPECT_NE(with({{"row_block", 100}})->check().error().what.find("spargeattn.row_block: got 100"), std::string::npos);
  for (const double l1 : {0.08, 0.2}) EXPECT_NE(with({{"l1", l1}})->check().error().what.find("spargeattn.pv_l1: got 0.08, need more than l1"), std::string::npos);
  auto m = with({});
  EXPECT_TRUE(m->check().ok());
  EXPECT_TRUE(m->preset("paper").ok());
  EXPECT_TRUE(m->check().ok());
  EXPECT_TRUE(m->preset("auto").ok());
  EXPECT_FALSE(m->preset("quick").ok());
}

}  // namespace
}  // namespace lacuna::method
