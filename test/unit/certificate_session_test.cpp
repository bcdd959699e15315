// SPDX-License-Identifier: Apache-2.0
// Certificates of sessions: what they are worth, what they say where nothing is known, and what they refuse.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "base/rng.h"
#include "lacuna/lacuna.h"
#include "support/decode_case.h"
#include "support/planted_keys.h"

namespace lacuna::test {
namespace {

// Where bounds are tight the certificate is worth something: most keys stay out, and little is proved lost.
TEST(Certificate, HoldsAtAFractionOfTheKeysWhereKeysLieInClusters) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const char* method : {"quest:budget=64:layer_start=0", "streamingllm:sink=4:window=16"}) {
    auto s = open_session(std::string(method) + " certify=5% threads=1");
    DecodeCase x;
    x.n = 1024;
    Rng rng(5);
    clusters(x, rng);
    x.seal();
    x.attend(*s);
    for (int h = 0; h < x.hq; ++h) EXPECT_LE(x.bound[static_cast<std::size_t>(h)], 0.05f);
    EXPECT_LT(x.density(), 0.25) << method;
  }
}

// A method that leaves out what matters is made to keep it.
TEST(Certificate, MakesAWindowFindANeedle) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto alone = open_session("streamingllm:sink=4:window=16 certify=100% threads=1"),
       kept = open_session("streamingllm:sink=4:window=16 certify=1% threads=1");
  DecodeCase x;
  Rng rng(3);
  one_needle(x, rng);
  x.seal();
  x.attend(*alone);
  EXPECT_GT(x.lost(0), 0.3);
  x.attend(*kept);
  for (int h = 0; h < x.hq; ++h) EXPECT_LE(x.lost(h), 0.01);
}

// What cannot be bounded is not left out, and the report says why.
TEST(Certificate, IsDenseWhereNothingIsKnown) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const bool biased : {true, false}) {
    DecodeCase x;
    Rng rng(9);
    random_keys(x, rng);
    if (biased)
      x.mask.assign(static_cast<std::size_t>(x.n), 0x3c00);  // adds 1 to each score
    else
      x.scale = -0.2f;
    x.seal();
    auto keeps = open_session("streamingllm:sink=4:window=32 certify=10% threads=1"),
         tells = open_session("streamingllm:sink=4:window=32 certify=1 threads=1");
    x.attend(*keeps);
    EXPECT_EQ(x.bound, std::vector<float>(4, 0.0f));
    EXPECT_EQ(keeps->report().decode.density(), 1.0);
    EXPECT_TRUE(keeps->report().note.starts_with("certify: ")) << keeps->report().note;
    x.attend(*tells);
    EXPECT_EQ(x.bound, std::vector<float>(4, 1.0f));
    EXPECT_LT(tells->report().decode.density(), 0.2);
  }
}

// Keys or queries that are no numbers, kept or left out: nothing is proved of them but that all is kept.
TEST(Certificate, ProvesNothingFromWhatIsNoNumber) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const float bad : {NAN, INFINITY})
    for (const int cell : {-1, 509, 70})  // of the query; a key that the window keeps; one that it leaves out
      for (const char* method : {"streamingllm:sink=4:window=32", "quest:budget=48:page=16:layer_start=0"}) {
        DecodeCase x;
        x.hkv = 1, x.hq = 1;
        Rng rng(9);
        random_keys(x, rng);
        for (int c = 64; c < 80; ++c)  // a page that no method would choose
          for (int i = 0; i < x.d; ++i) x.key(0, c)[i] = -x.q[static_cast<std::size_t>(i)];
        (cell < 0 ? x.q[5] : x.key(0, cell)[5]) = std::copysign(bad, x.q[5]);
        x.seal();
        auto keeps = open_session(std::string(method) + " certify=10% threads=1"),
             tells = open_session(std::string(method) + " certify=1 threads=1");
        x.attend(*tells);
        EXPECT_EQ(x.bound[0], 1.0f) << method << bad << " cell " << cell;
        x.attend(*keeps);
        EXPECT_EQ(x.bound[0], 0.0f) << method << bad << " cell " << cell;
      }
}

// Sums that leave f32 and would come back: told as -infinity, they would prove that nothing is there.
TEST(Certificate, ProvesNothingFromSumsThatOverflow) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  for (const char* method : {"streamingllm:sink=4:window=32", "quest:budget=48:page=16:layer_start=0"}) {
    DecodeCase x;
    x.type = Dtype::f32;
    Rng rng(9);
    random_keys(x, rng);
    for (int h = 0; h < x.hq; ++h) {
      float* q = x.q.data() + h * x.d;
      q[0] = -0x1p70f, q[1] = 0x1p70f;
    }
    for (int h = 0; h < x.hkv; ++h)
      for (int c = 0; c < x.n; ++c) x.key(h, c)[0] = x.key(h, c)[1] = c < 16 || c >= x.n - 48 ? 0.0f : 0x1p60f;
    x.seal();
    auto s = open_session(std::string(method) + " certify=100% threads=1");
    x.attend(*s);
    for (int h = 0; h < x.hq; ++h) {
      EXPECT_GT(x.lost(h), 0.5) << method;
      EXPECT_LE(x.lost(h), x.bound[static_cast<std::size_t>(h)]) << method;
    }
  }
}

TEST(Certificate, SaysNothingOfPromptsButThatDenseRowsLoseNothing) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  constexpr int kDim = 32;
  struct Prompt {
    const char* method;
    int rows;
    float want;
  };
  for (const auto& [method, rows, want] :
       {Prompt{"streamingllm:sink=4:window=32", 300, 1.0f}, Prompt{"quest", 300, 0.0f},
        Prompt{"streamingllm:sink=4:window=32", 30, 0.0f}}) {
    std::vector<float> q(static_cast<std::size_t>(rows * kDim)), out(q.size()),
        bound(static_cast<std::size_t>(rows), NAN);
    Rng rng(1);
    for (auto& y : q) y = static_cast<float>(rng.normal());
    auto s = open_session(std::string(method) + " certify=5% threads=1");
    AttendCall c;
    c.q = c.k = c.v = contiguous(q.data(), Dtype::f32, 1, 1, rows, kDim);
    c.out = contiguous(out.data(), Dtype::f32, 1, 1, rows, kDim);
    c.lost_at_most = bound.data();
    ASSERT_TRUE(s->attend(c).ok());
    EXPECT_EQ(bound, std::vector<float>(bound.size(), want)) << method << " " << rows;
    EXPECT_EQ(s->report().certificate.rows, 0);
  }
}

// Tokens of two sequences in one call, their cells in turn: each has the bounds it has alone.
TEST(Certificate, IsOfEachSequenceOfACall) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  DecodeCase x;
  Rng rng(4);
  random_keys(x, rng);
  x.seal();
  std::vector<std::uint16_t> masks;
  std::vector<std::vector<float>> alone;
  for (int sequence = 0; sequence < 2; ++sequence) {
    x.mask.assign(static_cast<std::size_t>(x.n), 0);
    for (int c = 0; c < x.n; ++c)
      if (c / 8 % 2 != sequence || (sequence == 0 && c < 100)) x.mask[static_cast<std::size_t>(c)] = 0xfc00;
    masks.insert(masks.end(), x.mask.begin(), x.mask.end());
    x.attend(*open_session("streamingllm:sink=4:window=64 certify=100% threads=1"));
    alone.push_back(x.bound);
  }
  std::vector<float> q, bound(static_cast<std::size_t>(2 * x.hq), NAN),
      out(bound.size() * static_cast<std::size_t>(x.d));
  for (int h = 0; h < x.hq; ++h)
    for (int row = 0; row < 2; ++row) q.insert(q.end(), x.q.begin() + h * x.d, x.q.begin() + (h + 1) * x.d);
  AttendCall c;
  c.layer = 2;
  c.q = contiguous(q.data(), Dtype::f32, 1, x.hq, 2, x.d);
  c.k = c.v = x.cache();
  c.out = contiguous(out.data(), Dtype::f32, 1, x.hq, 2, x.d);
  c.mask = {masks.data(), x.n, nullptr, nullptr};
  c.lost_at_most = bound.data();
  auto s = open_session("streamingllm:sink=4:window=64 certify=100% threads=1");
  ASSERT_TRUE(s->attend(c).ok());
  for (int h = 0; h < x.hq; ++h)
    for (int row = 0; row < 2; ++row) {
      EXPECT_EQ(bound[static_cast<std::size_t>(2 * h + row)],
                alone[static_cast<std::size_t>(row)][static_cast<std::size_t>(h)]);
      EXPECT_GT(bound[static_cast<std::size_t>(2 * h + row)], 0.1f);
    }
  EXPECT_NE(alone[0], alone[1]);
}

TEST(Certificate, StandsInTheReportApartFromWhatIsMeasured) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  auto s = open_session("quest:budget=64:layer_start=0 certify=5% audit=full threads=1");
  DecodeCase x;
  Rng rng(2);
  clusters(x, rng);
  x.seal();
  x.attend(*s);
  const Report r = s->report();
  EXPECT_EQ(r.certificate.limit, 0.05);
  EXPECT_EQ(r.certificate.rows, 2 * x.hq) << "a row of each head for each of two calls";
  EXPECT_EQ(r.certificate.within, 1.0);
  EXPECT_GT(r.certificate.mean, 0.0);
  EXPECT_GE(r.certificate.max, r.certificate.mean);
  EXPECT_GE(r.certificate.mean + 1e-3, r.decode.lost.mean);  // measured by kernels that round to bf16
  const auto json = nlohmann::json::parse(s->report_json());
  EXPECT_EQ(json["certificate"]["rows"], 2 * x.hq);
  EXPECT_EQ(json["certificate"]["limit"], 0.05);
  s->reset_report();
  EXPECT_EQ(s->report().certificate.rows, 0);
  EXPECT_EQ(s->report().certificate.limit, 0.05);
  EXPECT_TRUE(nlohmann::json::parse(open_session("quest")->report_json())["certificate"].is_null());
}

TEST(Certificate, RefusesWhatItCannotKeep) {
  for (const char* text :
       {"certify=0", "certify=101%", "certify=-1%", "certify=", "certify=two", "certify=nan", "certify=1.5"}) {
    const auto o = parse_options(text);
    ASSERT_FALSE(o.ok()) << text;
    EXPECT_NE(o.error().what.find("certify: got"), std::string::npos) << o.error().what;
  }
  EXPECT_DOUBLE_EQ(parse_options("certify=2.5%").value().certify, 0.025);
  EXPECT_DOUBLE_EQ(parse_options("certify=100%").value().certify, 1.0);
  for (const char* text : {"quest certify=5% max_loss=1%", "quest certify=5% max_error=1%", "auto certify=5%"}) {
    const auto s = Session::open(parse_options(text).value());
    ASSERT_FALSE(s.ok()) << text;
    EXPECT_NE(s.error().what.find("certify"), std::string::npos) << s.error().what;
  }
  Options o;
  for (const double bad : {-0.1, 1.1, static_cast<double>(NAN)}) {
    o.certify = bad;
    EXPECT_FALSE(Session::open(o).ok()) << bad;
  }
}

}  // namespace
}  // namespace lacuna::test
