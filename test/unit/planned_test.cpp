// SPDX-License-Identifier: Apache-2.0
// Plans apart from their calls: as words, handed back to attend(), and made again for gradients.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/rng.h"
#include "engine/plan_words.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

constexpr int kHq = 4, kHkv = 2, kD = 32;

std::vector<float> normal(std::size_t n, std::uint64_t seed) {
  std::vector<float> x(n);
  Rng rng(seed);
  for (float& f : x) f = static_cast<float>(rng.normal());
  return x;
}

// A causal f32 call with all of its gradients.
struct Problem {
  int n;
  std::vector<float> q, k, v, g, out, lse, d_q, d_k, d_v;
  AttendGradCall c;
  explicit Problem(int tokens) : n(tokens) {
    const auto rows = static_cast<std::size_t>(kHq * n * kD), cells = static_cast<std::size_t>(kHkv * n * kD);
    q = normal(rows, 1), k = normal(cells, 2), v = normal(cells, 3), g = normal(rows, 4);
    out.assign(rows, NAN), lse.assign(static_cast<std::size_t>(kHq * n), NAN);
    d_q.assign(rows, NAN), d_k.assign(cells, NAN), d_v.assign(cells, NAN);
    const auto tensor = [&](std::vector<float>& x, int heads) { return contiguous(x.data(), Dtype::f32, 1, heads, n, kD); };
    c.forward.q = tensor(q, kHq), c.forward.k = tensor(k, kHkv), c.forward.v = tensor(v, kHkv);
    c.forward.out = tensor(out, kHq), c.forward.lse = lse.data();
    c.d_out = tensor(g, kHq), c.d_q = tensor(d_q, kHq), c.d_k = tensor(d_k, kHkv), c.d_v = tensor(d_v, kHkv);
  }
};

std::unique_ptr<Session> open(const std::string& method) {
  Options o;
  o.method = method;
  o.precision = Precision::high;
  o.threads = 1;
  auto s = Session::open(o);
  EXPECT_TRUE(s.ok()) << (s.ok() ? "" : s.error().what);
  return std::move(s.value());
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::fmax(most, std::isnan(a[i]) ? INFINITY : std::fabs(a[i] - b[i]));
  return most;
}

std::vector<Plan> one_of_each() {
  Plan p;
  p.patterns = {Dense{}, Window{4, std::int64_t{1} << 35, -1}, BlockMap{1, 64, 32, 100, 100, {0, 1, 3}, {0, 0, 3}},
                Ranges{Ranges::Of::cells, 2, 64, 100, 128, {0, 1, 2, 2, 2, 3}, {{0, 3}, {5, 9}, {100, 101}}}};
  p.routes = {0, 1, 2, -2};
  p.pv_skip = {0.5f, INFINITY, 3, 4};
  return {p, dense_plan("")};
}

TEST(Planned, WordsComeBackAsTheyWere) {
  const auto words = to_words(one_of_each());
  const auto read = plans_from_words(words);
  ASSERT_TRUE(read.ok()) << read.error().what;
  EXPECT_EQ(to_words(read.value().plans), words);
  EXPECT_EQ(std::get<Window>(read.value().plans[0].patterns[1]).window, std::int64_t{1} << 35);
  EXPECT_EQ(std::get<Window>(read.value().plans[0].patterns[1]).dense_from, -1);
}

TEST(Planned, WhatIsCutIsRefused) {
  const auto words = to_words(one_of_each());
  for (std::size_t n = 0; n < words.size(); ++n) {
    std::vector<std::int32_t> cut(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(plans_from_words(cut).ok()) << n;
    if (n > 1) cut[1] = static_cast<std::int32_t>(n);
    EXPECT_FALSE(plans_from_words(cut).ok()) << n;
  }
}

// Whatever a word becomes, the call is refused or done, and a refusal says something.
TEST(Planned, DamagedWordsAreRefusedOrHarmless) {
  Problem p(200);
  const auto session = open("xattention:stride=4:block=64:mass=0.5");
  const auto plan = session->plan(p.c.forward);
  ASSERT_TRUE(plan.ok());
  int refused = 0;
  for (std::size_t at = 0; at < plan.value().size(); ++at)
    for (const std::int32_t to : {-1, 0, 1, 7, 1 << 20, std::numeric_limits<std::int32_t>::max(), std::numeric_limits<std::int32_t>::min()}) {
      auto words = plan.value();
      words[at] = to;
      p.c.forward.plan = words.data();
      p.c.forward.plan_words = static_cast<std::int64_t>(words.size());
      const Status done = session->attend(p.c.forward);
      refused += !done.ok();
      EXPECT_TRUE(done.ok() || !done.error().what.empty());
    }
  EXPECT_GT(refused, static_cast<int>(plan.value().size()));
}

constexpr const char* kSpecs[] = {"dense", "streamingllm:sink=4:window=50", "trianglemix:layer_start=0:sink=4:window=50:last_rows=60",
                                  "xattention:stride=4:block=64:mass=0.6", "minference:vertical=30:slash=10:last_rows=16"};

TEST(Planned, APlanHandedBackDoesWhatTheMethodDoes) {
  for (const char* spec : kSpecs) {
    Problem free(300), bound(300);
    const auto session = open(spec);
    std::uint64_t number = 0, again = 0;
    free.c.forward.plan_number = &number;
    ASSERT_TRUE(session->attend(free.c.forward).ok());
    const auto plan = session->plan(bound.c.forward);
    ASSERT_TRUE(plan.ok()) << plan.error().what;
    const auto other = open("dense");  // the plan says it all
    bound.c.forward.plan = plan.value().data();
    bound.c.forward.plan_words = static_cast<std::int64_t>(plan.value().size());
    bound.c.forward.plan_number = &again;
    ASSERT_TRUE(other->attend(bound.c.forward).ok());
    EXPECT_EQ(free.out, bound.out) << spec;
    EXPECT_EQ(number, again) << spec;
    EXPECT_DOUBLE_EQ(session->report().prefill.density(), other->report().prefill.density()) << spec;
    EXPECT_LT(session->report().prefill.density(), std::string(spec) == "dense" ? 1.1 : 0.9) << spec;
  }
}

// d loss / d x for loss = sum(g * out), along one random direction, by central differences of attend() with the plan held.
TEST(Planned, GradientsAreThoseOfTheKeptPart) {
  for (const char* spec : kSpecs) {
    Problem p(200);
    const auto session = open(spec);
    std::uint64_t number = 0;
    p.c.forward.plan_number = &number;
    ASSERT_TRUE(session->attend(p.c.forward).ok());
    const Status done = session->attend_grad(p.c);
    ASSERT_TRUE(done.ok()) << done.error().what;
    const auto plan = session->plan(p.c.forward);
    ASSERT_TRUE(plan.ok());
    const auto loss = [&](std::vector<float>& x, const std::vector<float>& along, float step) {
      const auto kept = x;
      for (std::size_t i = 0; i < x.size(); ++i) x[i] += step * along[i];
      p.c.forward.plan = plan.value().data();
      p.c.forward.plan_words = static_cast<std::int64_t>(plan.value().size());
      EXPECT_TRUE(session->attend(p.c.forward).ok());
      x = kept;
      double sum = 0;
      for (std::size_t i = 0; i < p.out.size(); ++i) sum += static_cast<double>(p.g[i]) * p.out[i];
      return sum;
    };
    for (auto [x, d_x] : {std::pair{&p.q, &p.d_q}, {&p.k, &p.d_k}, {&p.v, &p.d_v}}) {
      const auto along = normal(x->size(), 9);
      double exact = 0;
      for (std::size_t i = 0; i < x->size(); ++i) exact += static_cast<double>((*d_x)[i]) * along[i];
      constexpr float kStep = 1e-3f;
      const double found = (loss(*x, along, kStep) - loss(*x, along, -kStep)) / (2 * kStep);
      EXPECT_NEAR(found, exact, 2e-2 * std::fmax(10, std::fabs(exact))) << spec;
    }
  }
}

// Two sequences in one call: their gradients add up to those of two calls.
TEST(Planned, SequencesOfOneCallHaveTheirOwnGradients) {
  constexpr int kHalf = 150;
  Problem both(2 * kHalf);
  std::vector<std::uint16_t> mask(static_cast<std::size_t>(4 * kHalf * kHalf), 0xfc00);
  std::vector<std::int32_t> row_cell, cell_pos;
  for (int i = 0; i < 2 * kHalf; ++i) {
    row_cell.push_back(i);
    cell_pos.push_back(i % kHalf);
    for (int j = i < kHalf ? 0 : kHalf; j <= i; ++j) mask[static_cast<std::size_t>(i * 2 * kHalf + j)] = 0;
  }
  both.c.forward.mask = {mask.data(), 2 * kHalf, row_cell.data(), cell_pos.data()};
  const auto session = open("streamingllm:sink=4:window=40");
  ASSERT_TRUE(session->attend(both.c.forward).ok());
  ASSERT_TRUE(session->attend_grad(both.c).ok());
  for (int part = 0; part < 2; ++part) {
    Problem one(kHalf);
    const auto cut = [&](std::vector<float>& to, const std::vector<float>& from, int heads) {
      for (int h = 0; h < heads; ++h)
        std::copy_n(from.begin() + (h * 2 * kHalf + part * kHalf) * kD, kHalf * kD, to.begin() + h * kHalf * kD);
    };
    cut(one.q, both.q, kHq), cut(one.k, both.k, kHkv), cut(one.v, both.v, kHkv), cut(one.g, both.g, kHq);
    ASSERT_TRUE(session->attend(one.c.forward).ok());
    ASSERT_TRUE(session->attend_grad(one.c).ok());
    Problem want(kHalf);
    cut(want.d_q, both.d_q, kHq), cut(want.d_k, both.d_k, kHkv), cut(want.d_v, both.d_v, kHkv);
    EXPECT_LT(difference(one.d_q, want.d_q), 1e-4);
    EXPECT_LT(difference(one.d_k, want.d_k), 1e-4);
    EXPECT_LT(difference(one.d_v, want.d_v), 1e-4);
  }
}

// Every second row sees other cells than its neighbours: no two rows are of one sequence, and one plan speaks of them all.
TEST(Planned, AWholeCallIsOnePlan) {
  constexpr int kN = 130;
  Problem p(kN);
  std::vector<std::uint16_t> mask(kN * kN, 0xfc00);
  for (int i = 0; i < kN; ++i)
    for (int j = i % 2; j < kN; j += 2) mask[static_cast<std::size_t>(i * kN + j)] = 0;
  p.c.forward.mask = {mask.data(), kN, nullptr, nullptr};
  const Plan kept = plan_of(BlockMap{1, 64, 32, kN, kN, {0, 2, 3, 4}, {0, 2, 1, 4}});
  auto words = to_words(std::span(&kept, 1));
  words[2] = kWholeCall;
  p.c.forward.plan = words.data();
  p.c.forward.plan_words = static_cast<std::int64_t>(words.size());
  ASSERT_TRUE(open("dense")->attend(p.c.forward).ok());
  Problem want(kN);
  for (int i = 0; i < kN; ++i)
    for (int j = 0; j < kN; ++j) {
      const int block = j / 32, rows = i / 64;
      if (!(rows == 0 ? block == 0 || block == 2 : rows == 1 ? block == 1 : block == 4)) mask[static_cast<std::size_t>(i * kN + j)] = 0xfc00;
    }
  want.c.forward.mask = p.c.forward.mask;
  ASSERT_TRUE(open("dense")->attend(want.c.forward).ok());
  EXPECT_LT(difference(p.out, want.out), 1e-5);
  words[2] = 1;  // the call's sequences are many
  EXPECT_FALSE(open("dense")->attend(p.c.forward).ok());
}

TEST(Planned, WhatHasNoBackwardSaysSo) {
  const auto refusal = [](Session& session, Problem& p) {
    EXPECT_TRUE(session.attend(p.c.forward).ok());
    const Status done = session.attend_grad(p.c);
    return done.ok() ? std::string("none") : done.error().what;
  };
  Problem p(300);
  EXPECT_NE(refusal(*open("spargeattn:mass=0.9:pv_skip=5"), p).find("pv_skip"), std::string::npos);
  EXPECT_NE(refusal(*open("auto"), p).find("auto"), std::string::npos);
  std::vector<std::uint16_t> mask(300 * 300, 0x3c00);  // a bias of 1
  p.c.forward.mask = {mask.data(), 300, nullptr, nullptr};
  EXPECT_NE(refusal(*open("dense"), p).find("additive mask"), std::string::npos);
  Problem other(300);
  std::uint64_t number = 0;
  other.c.forward.plan_number = &number;
  const auto session = open("streamingllm:sink=4:window=40");
  ASSERT_TRUE(session->attend(other.c.forward).ok());
  ++number;
  const Status done = session->attend_grad(other.c);
  ASSERT_FALSE(done.ok());
  EXPECT_NE(done.error().what.find("another one in backward"), std::string::npos);
}

}  // namespace
}  // namespace lacuna
