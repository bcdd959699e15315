// SPDX-License-Identifier: Apache-2.0
// Method auto through a session, with costs given instead of measured.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/registry.h"
#include "engine/session.h"
#include "support/problem.h"

namespace lacuna {
namespace {

using testing::Output;
using testing::Problem;

// Dense attention is dear, choosing is free.
CostModel dear_dense(const Chooser& chooser) {
  CostModel m;
  const auto phase = [](const std::vector<std::string>& specs) {
    PhaseCost p;
    p.pair = 2e-6;  // so that even random keys, of which little can be left out, pay
    for (const auto& spec : specs) p.candidates.push_back({spec, {}, 1e-6});
    return p;
  };
  m.prefill = phase(chooser.specs(Phase::prefill));
  m.decode = phase(chooser.specs(Phase::decode));
  return m;
}

struct Auto {
  std::unique_ptr<Session::Impl> s = std::make_unique<Session::Impl>();
  explicit Auto(const std::string& spec) {
    s->method = std::move(make_method(spec).value());
    s->have = detect_features();
    s->options.precision = Precision::high;
    s->own_pool = make_thread_pool(1);
    s->parallel = s->own_pool.get();
    EXPECT_TRUE(s->open_candidates().ok());
  }
  void give_costs(const AttendCall& c) {
    s->costs.emplace_back(s->shape_of(c), dear_dense(*s->chooser));
  }
};

TEST(AutoSession, TakesACandidateThatPaysAndGivesItsResult) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: no estimator runs";
  const Problem p({.hq = 2, .hkv = 1, .n = 2048, .d = 32, .seed = 3});
  Auto session("auto:max_loss=1");
  auto alone = testing::open("xattention");
  ASSERT_TRUE(alone.ok());
  for (int call = 0; call < 2; ++call) {
    Output got(2, 512, 32), want(2, 512, 32);
    const AttendCall c = testing::call_of(p, 1536, 2048, 2048, got);
    if (call == 0) session.give_costs(c);
    ASSERT_TRUE(session.s->attend(c).ok());
    ASSERT_TRUE(alone.value()->attend(testing::call_of(p, 1536, 2048, 2048, want)).ok());
    for (std::size_t i = 0; i < got.out.size(); ++i) ASSERT_EQ(got.out[i], want.out[i]) << i;
  }
  EXPECT_NE(session.s->chooser->summary().find("xattention in 1 of 1 layers"), std::string::npos) << session.s->chooser->summary();
  EXPECT_GT(session.s->prefill.loss.stats().rows, 0) << "auto audits although it was not told to";
}

TEST(AutoSession, GoesBackToDenseWhereTheLossPassesTheLimit) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: no estimator runs";
  const Problem p({.hq = 4, .hkv = 1, .n = 4096, .d = 32, .seed = 4});
  Auto session("auto:max_loss=0.000001:decode=quest");
  for (int call = 0; call < 12; ++call) {
    Output got(4, 1, 32);
    const AttendCall c = testing::call_of(p, 4095, 4096, 4096, got);
    AttendCall late = c;
    late.layer = 5;  // quest leaves the first layers dense
    if (call == 0) session.give_costs(c);
    for (int again = 0; again < 20; ++again) {
      ASSERT_TRUE(session.s->attend(late).ok());
      if (call + again == 0) { EXPECT_EQ(session.s->decode.loss.stats().rows, 0) << "a trial that was not drawn counts in the report"; }
    }
  }
  EXPECT_GT(session.s->decode.report.attended_pairs, 0);
  EXPECT_LT(session.s->decode.report.attended_pairs, session.s->decode.report.allowed_pairs) << "no candidate was ever tried";
  EXPECT_NE(session.s->chooser->summary().find("decode dense (1 layers lose more"), std::string::npos) << session.s->chooser->summary();
}

TEST(AutoSession, CandidatesAreNamed) {
  EXPECT_EQ(Auto("auto:prefill=any").s->chooser->specs(Phase::prefill).size(), 3u);
  EXPECT_TRUE(Auto("auto:decode=none").s->chooser->specs(Phase::decode).empty());
}

TEST(AutoSession, ShortPromptsMeasureNothing) {
  const Problem p({.hq = 2, .hkv = 1, .n = 600, .d = 32, .seed = 5});
  Auto session("auto");
  Output got(2, 600, 32);
  ASSERT_TRUE(session.s->attend(testing::call_of(p, 0, 600, 600, got)).ok());
  EXPECT_TRUE(session.s->costs.empty());
}

}  // namespace
}  // namespace lacuna
