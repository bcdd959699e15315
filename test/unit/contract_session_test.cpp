// SPDX-License-Identifier: Apache-2.0
// A session's contract against inputs made to break it: the mean loss over all rows, by brute force, is within the limit, or the
// report says that it is not.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "account/loss.h"
#include "base/rng.h"
#include "engine/packed_tensor.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

constexpr int kLayers = 8, kHeads = 2, kDim = 32, kTokens = 4096, kChunk = 256;

// One layer's q, k, v of a whole prompt, f32, [heads][tokens][dim].
struct Layer {
  std::vector<float> q, k, v, out, lse;
  Layer() {
    for (auto* x : {&q, &k, &v, &out}) x->assign(std::size_t{kHeads} * kTokens * kDim, 0.0f);
    lse.assign(std::size_t{kHeads} * kTokens, 0.0f);
  }
  static std::size_t at(int h, int i) { return (static_cast<std::size_t>(h) * kTokens + static_cast<std::size_t>(i)) * kDim; }
};

// Adversaries: they write a head's q and k.
using Plant = std::function<void(Layer&, int head, Rng&)>;

void random_head(Layer& l, int h, Rng& rng, float q_size) {
  for (int i = 0; i < kTokens; ++i)
    for (int d = 0; d < kDim; ++d) {
      l.q[Layer::at(h, i) + d] = q_size * static_cast<float>(rng.normal());
      l.k[Layer::at(h, i) + d] = static_cast<float>(rng.normal());
    }
}

// Row i attends to key(i), and to little else.
void aimed_head(Layer& l, int h, Rng& rng, const std::function<int(int)>& key) {
  random_head(l, h, rng, 0.1f);
  for (int i = 0; i < kTokens; ++i)
    for (int d = 0; d < kDim; ++d) l.q[Layer::at(h, i) + d] = 4.0f * l.k[Layer::at(h, std::clamp(key(i), 0, i)) + d];
}

void local(Layer& l, int h, Rng& rng) {
  aimed_head(l, h, rng, [](int i) { return i - 1; });
}
// The mass spread flat over all keys: nothing can be left out cheaply.
void flat(Layer& l, int h, Rng& rng) { random_head(l, h, rng, 0.01f); }
// Each row has one key somewhere, which no mean of keys shows.
void needles(Layer& l, int h, Rng& rng) {
  aimed_head(l, h, rng, [&](int i) { return static_cast<int>(rng.below(static_cast<std::uint64_t>(i) + 1)); });
}
void even_slash(Layer& l, int h, Rng& rng) {
  aimed_head(l, h, rng, [](int i) { return i - 1024; });
}
// Near keys for a long while, then far ones: what was learnt is wrong.
void drift(Layer& l, int h, Rng& rng) {
  aimed_head(l, h, rng, [&](int i) { return i < kTokens * 5 / 8 ? i - 1 : static_cast<int>(rng.below(static_cast<std::uint64_t>(i) / 2)); });
}
// Good and bad by turns of a chunk.
void turns(Layer& l, int h, Rng& rng) {
  aimed_head(l, h, rng, [](int i) { return i / kChunk % 2 ? i - 1 : i / 3; });
}

std::vector<Layer> make_layers(const Plant& plant, std::uint64_t seed) {
  std::vector<Layer> layers(kLayers);
  Rng rng(seed);
  for (Layer& l : layers)
    for (int h = 0; h < kHeads; ++h) {
      plant(l, h, rng);
      for (int i = 0; i < kTokens; ++i)
        for (int d = 0; d < kDim; ++d) l.v[Layer::at(h, i) + d] = static_cast<float>(rng.normal());
    }
  return layers;
}

// The prompt by chunks, layer by layer, as a host would.
void attend_all(Session& s, std::vector<Layer>& layers, int from = 0, int to = kTokens, int chunk = kChunk) {
  std::vector<float> lse(std::size_t{kHeads} * static_cast<std::size_t>(chunk));
  for (int begin = from; begin < to; begin += chunk)
    for (int n = 0; n < kLayers; ++n) {
      Layer& l = layers[static_cast<std::size_t>(n)];
      const auto part = [&](std::vector<float>& x, int first, int rows) {
        Tensor t = contiguous(x.data() + static_cast<std::size_t>(first) * kDim, Dtype::f32, 1, kHeads, rows, kDim);
        t.stride[1] = std::int64_t{kTokens} * kDim;
        return t;
      };
      AttendCall c;
      c.layer = n;
      c.q = part(l.q, begin, chunk);
      c.out = part(l.out, begin, chunk);
      c.k = part(l.k, 0, begin + chunk);
      c.v = part(l.v, 0, begin + chunk);
      c.lse = lse.data();
      const Status done = s.attend(c);
      ASSERT_TRUE(done.ok()) << done.error().what;
      for (int h = 0; h < kHeads; ++h)
        std::copy_n(lse.data() + static_cast<std::size_t>(h) * chunk, chunk, l.lse.data() + static_cast<std::size_t>(h) * kTokens + begin);
    }
}

std::unique_ptr<Session> open(const std::string& text) {
  auto options = parse_options(text);
  EXPECT_TRUE(options.ok());
  auto s = Session::open(options.value());
  EXPECT_TRUE(s.ok()) << (s.ok() ? "" : s.error().what);
  return std::move(s.value());
}

double true_loss(const std::vector<Layer>& kept, const std::vector<Layer>& all) {
  double sum = 0;
  std::int64_t rows = 0;
  for (std::size_t n = 0; n < kept.size(); ++n)
    for (int h = 0; h < kHeads; ++h)
      for (int i = static_cast<int>(kMinAuditedKeys) - 1; i < kTokens; ++i, ++rows) {
        const std::size_t at = static_cast<std::size_t>(h) * kTokens + static_cast<std::size_t>(i);
        sum += lost_mass(kept[n].lse[at], all[n].lse[at]);
      }
  return sum / static_cast<double>(rows);
}

struct Case {
  const char* name;
  Plant plant;
};
const Case kCases[] = {{"local", local},           {"flat", flat},   {"needles", needles},
                       {"even_slash", even_slash}, {"drift", drift}, {"turns", turns}};
constexpr double kLimit = 0.06;

class Contracts : public testing::TestWithParam<std::tuple<int, const char*>> {};

TEST_P(Contracts, AreKeptOrSaidToBeBroken) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  const Case& adversary = kCases[std::get<0>(GetParam())];
  const std::string method = std::get<1>(GetParam());
  // A full audit steers nothing: the contract goes by what was drawn, and the report has the truth beside it.
  const bool full = method.starts_with("minference");
  auto layers = make_layers(adversary.plant, 11);
  auto all = layers;
  auto dense = open("dense threads=2"), s = open(method + fmt::format(" max_loss={} threads=2", kLimit));
  attend_all(*dense, all);
  attend_all(*s, layers);
  const Report r = s->report();
  const double truth = true_loss(layers, all);
  const bool held = r.contract.prefill.state == ContractReport::State::held;
  EXPECT_EQ(held, r.contract.prefill.upper <= kLimit);
  if (held) { EXPECT_LE(truth, kLimit) << "a breach that was not reported"; }
  EXPECT_LE(truth, r.contract.prefill.upper + 2e-3);
  if (full) { EXPECT_NEAR(r.prefill.lost.mean, truth, 2e-3); }
  else { EXPECT_EQ(r.prefill.lost.upper, r.contract.prefill.upper); }
  EXPECT_GT(r.prefill.lost.rows, 0);
  // Where the method loses nothing it is let work: a run that is dense all along would keep any contract.
  if (adversary.name == std::string("local") && method.starts_with("streamingllm")) {
    EXPECT_TRUE(held);
    EXPECT_LT(r.prefill.density(), 0.5);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Contracts,
                         testing::Combine(testing::Range(0, static_cast<int>(std::size(kCases))),
                                          testing::Values("streamingllm:sink=4:window=256", "xattention:mass=0.9", "minference:keep=0.1")),
                         [](const auto& p) {
                           const std::string method = std::get<1>(p.param);
                           return std::string(kCases[std::get<0>(p.param)].name) + "_" + method.substr(0, method.find(':'));
                         });

// Two heads of each layer: one that the method may have, one that it may not.
TEST(Contract, LeavesDenseTheHeadsThatLose) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto layers = make_layers([](Layer& l, int h, Rng& rng) { h == 0 ? local(l, h, rng) : flat(l, h, rng); }, 3);
  auto s = open("streamingllm:sink=4:window=256 max_loss=0.06 threads=2");
  attend_all(*s, layers);
  const auto contract = nlohmann::json::parse(s->report_json())["contract"];
  EXPECT_EQ(contract["prefill"]["state"], "held");
  EXPECT_EQ(contract["prefill"]["heads"], kLayers * kHeads);
  EXPECT_EQ(contract["prefill"]["dense_heads"], kLayers);
  for (const auto& h : contract["were_dense"]) {
    EXPECT_EQ(h["why"].get<std::string>().empty(), h["head"] == 0) << h;
    if (h["head"] == 1) { EXPECT_GT(h["loss"], 0.5); }
  }
}

TEST(Contract, OfTheOutputsError) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto layers = make_layers(needles, 5);
  auto s = open("streamingllm:sink=4:window=256 max_error=0.1 threads=2");
  attend_all(*s, layers);
  const Report r = s->report();
  EXPECT_TRUE(r.contract.of_error);
  EXPECT_LE(r.prefill.error.mean, 0.1);
  EXPECT_EQ(r.contract.prefill.state == ContractReport::State::held, r.prefill.error.upper <= 0.1);
}

// Decode: the prompt dense, then tokens one by one. The first steps are dense and looked at; a method that loses all goes dense.
TEST(Contract, InDecode) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const bool loses : {false, true}) {
    auto layers = make_layers(loses ? Plant(flat) : Plant(local), 9);
    auto s = open("streamingllm:sink=4:window=256 max_loss=0.05 threads=1");
    attend_all(*s, layers, 3200, 4096, 1);
    const Report r = s->report();
    EXPECT_EQ(r.decode.calls, 896 * kLayers);
    if (loses) {
      EXPECT_EQ(r.decode.density(), 1.0);
      EXPECT_EQ(r.contract.decode.state, ContractReport::State::held);
    } else {
      EXPECT_LT(r.decode.density(), 0.25);
      EXPECT_NE(r.contract.decode.state, ContractReport::State::broken);
    }
  }
}

// Layers with a window of the model's own lose nothing and are no part of the contract: they would thin out the mean.
TEST(Contract, IsNotAboutWindowedLayers) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto layers = make_layers(local, 3);
  auto s = open("streamingllm:sink=4:window=256 max_loss=0.06 threads=2");
  constexpr int kCells = 1024, kWindow = 512;
  std::vector<std::uint16_t> mask(std::size_t{kChunk} * kCells, 0xfc00);
  for (int i = 0; i < kChunk; ++i)
    for (int c = kCells - kChunk + i - kWindow + 1; c <= kCells - kChunk + i; ++c) mask[static_cast<std::size_t>(i * kCells + c)] = 0;
  Layer& l = layers[0];
  const auto part = [&](std::vector<float>& x, int first, int rows) {
    Tensor t = contiguous(x.data() + std::size_t{kDim} * static_cast<std::size_t>(first), Dtype::f32, 1, kHeads, rows, kDim);
    t.stride[1] = std::int64_t{kTokens} * kDim;
    return t;
  };
  AttendCall c;
  c.q = part(l.q, kCells - kChunk, kChunk);
  c.out = part(l.out, kCells - kChunk, kChunk);
  c.k = part(l.k, 0, kCells);
  c.v = part(l.v, 0, kCells);
  c.mask = {.data = mask.data(), .row_stride = kCells};
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(s->attend(c).ok());
  EXPECT_EQ(s->report().windowed_layers, 1);
  attend_all(*s, layers, 0, 1024);
  // Layer 0 is known for its window now: of the eight, seven count.
  EXPECT_EQ(s->report().contract.prefill.heads, 7 * kHeads);
  EXPECT_EQ(s->report().contract.prefill.mean, s->report().prefill.lost.mean);
  EXPECT_EQ(s->report().contract.prefill.upper, s->report().prefill.lost.upper);
}

// With a limit of 1 % no call of so short a prompt can run sparse: what the method would lose is not asked for, once it is known how
// much a pass shows.
TEST(Contract, LooksWhereItMayHelp) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const bool announced : {false, true}) {
    auto layers = make_layers(local, 3);
    auto s = open("streamingllm:sink=4:window=256 max_loss=0.01 threads=2");
    if (announced) s->announce(kLayers, kTokens);
    attend_all(*s, layers, 0, 1024);
    EXPECT_EQ(s->report().prefill.density(), 1.0);
    const auto contract = nlohmann::json::parse(s->report_json())["contract"];
    EXPECT_EQ(contract["were_dense"].size(), std::size_t{kLayers * kHeads});
    for (const auto& h : contract["were_dense"]) EXPECT_EQ(h["loss"].is_null(), announced) << h;
  }
}

// The last call of a prompt is not looked at either: nothing of it follows.
TEST(Contract, DoesNotLookAtAPromptsEnd) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const int prompt : {1024, 2048}) {
    auto layers = make_layers(flat, 3);
    auto s = open("streamingllm:sink=4:window=256 max_loss=0.06 threads=2");
    s->announce(kLayers, prompt);
    attend_all(*s, layers, 0, 1024, 1024);
    const auto contract = nlohmann::json::parse(s->report_json())["contract"];
    for (const auto& h : contract["were_dense"]) EXPECT_EQ(h["loss"].is_null(), prompt == 1024) << h;
  }
}

// What a contract takes is told apart from the five verbs, and all of it is part of the passes' time.
TEST(Contract, SaysWhatItTakes) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const char* limit : {"", " max_loss=0.06"}) {
    auto layers = make_layers(local, 3);
    auto s = open("xattention:mass=0.9 audit=sample threads=2" + std::string(limit));
    attend_all(*s, layers);
    const PhaseReport r = s->report().prefill;
    EXPECT_EQ(r.contract_seconds > 0, *limit != 0);
    EXPECT_LT(std::accumulate(std::begin(r.seconds), std::end(r.seconds), r.contract_seconds), r.pass_seconds);
    EXPECT_GT(r.audit_share(), 0);
    EXPECT_LT(r.audit_share(), 0.5);
    const auto json = nlohmann::json::parse(s->report_json())["prefill"];
    EXPECT_EQ(json["audit_share"], r.audit_share());
    EXPECT_EQ(json["contract_s"], r.contract_seconds);
    s->reset_report();
    EXPECT_EQ(s->report().prefill.pass_seconds, 0);
  }
}

TEST(Contract, BadLimitsAreRefused) {
  for (const char* text : {"max_loss=0", "max_loss=1", "max_loss=120%", "max_loss=-1%", "max_loss=", "max_loss=one", "max_loss=nan", "max_error=2"}) {
    const auto o = parse_options(text);
    ASSERT_FALSE(o.ok()) << text;
    EXPECT_NE(o.error().what.find("above 0 and below 1"), std::string::npos) << o.error().what;
  }
  EXPECT_DOUBLE_EQ(parse_options("max_loss=2.5%").value().max_loss, 0.025);
  const auto both = Session::open(parse_options("xattention max_loss=0.1 max_error=0.1").value());
  ASSERT_FALSE(both.ok());
  EXPECT_NE(both.error().what.find("keeps one of them"), std::string::npos);
}

TEST(Contract, ANewReportIsANewRun) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto layers = make_layers(flat, 3);
  auto s = open("streamingllm:sink=4:window=256 max_loss=0.5 threads=2");
  for (int i = 0; i < 2; ++i) {
    attend_all(*s, layers);
    EXPECT_EQ(s->report().contract.prefill.state, ContractReport::State::held);
    s->reset_report();
    EXPECT_EQ(s->report().contract.prefill.heads, 0);
  }
}

}  // namespace
}  // namespace lacuna
