// SPDX-License-Identifier: Apache-2.0
// Pictures of what is kept: keys that are all alike, so that each visible one has the same attention.
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

constexpr int kHq = 4, kHkv = 2, kD = 64, kTokens = 1024, kParts = 8, kPart = kTokens / kParts, kLayers = 4;

// Reads the prompt in calls of `rows`, layer by layer.
nlohmann::json patterns_of(const std::string& method, int rows, bool wanted = true, Session* session = nullptr) {
  Options o;
  o.method = method;
  o.audit = Audit::sample;
  o.patterns = wanted;
  std::unique_ptr<Session> own;
  if (!session) {
    own = std::move(Session::open(o).value());
    own->announce(kLayers, kTokens);
    session = own.get();
  }
  Rng rng(5);
  std::vector<float> q(kHq * kTokens * kD), out(q.size());
  for (float& x : q) x = static_cast<float>(rng.normal());
  std::vector<std::uint16_t> k(kHkv * kTokens * kD, 0x3c00);  // ones
  for (int begin = 0; begin < kTokens; begin += rows)
    for (int layer = 0; layer < kLayers; ++layer) {
      AttendCall c;
      c.layer = layer;
      c.q = token_major(q.data(), Dtype::f32, 1, kHq, rows, kD);
      c.k = token_major(k.data(), Dtype::f16, 1, kHkv, begin + rows, kD);
      c.v = c.k;
      c.out = token_major(out.data(), Dtype::f32, 1, kHq, rows, kD);
      EXPECT_TRUE(session->attend(c).ok());
    }
  const auto report = nlohmann::json::parse(session->report_json());
  if (!report.contains("patterns")) return nullptr;
  nlohmann::json patterns = report["patterns"];
  patterns["all"] = report["prefill"]["density"];
  return patterns;
}

TEST(Patterns, OnlyWhenAskedFor) {
  EXPECT_TRUE(patterns_of("dense", kTokens, false).is_null());
  EXPECT_FALSE(parse_options("dense patterns=yes").ok());
  EXPECT_TRUE(parse_options("dense patterns=1").value().patterns);
}

TEST(Patterns, DenseKeepsAllAndShowsTheMass) {
  const auto p = patterns_of("dense", kTokens);
  EXPECT_EQ(p["parts"], kParts);
  EXPECT_EQ(p["density"], nlohmann::json(std::vector<std::vector<double>>(kLayers, std::vector<double>(kHq, 1.0))));
  ASSERT_EQ(p["maps"].size(), 6u);  // layers 1, 2, 3; heads 1, 3
  EXPECT_EQ(p["maps"][0]["layer"], 1);
  EXPECT_EQ(p["maps"][5]["layer"], 3);
  EXPECT_EQ(p["maps"][5]["head"], 3);
  for (const auto& map : p["maps"])
    for (std::size_t r = 4; r < kParts; ++r) {  // rows that see 5 parts or more: each whole part has 10 to 25 %
      const std::string kept = map["kept"][r], mass = map["mass"][r], lost = map["lost"][r];
      EXPECT_EQ(kept, std::string(r + 1, '9') + std::string(kParts - r - 1, ' '));
      EXPECT_EQ(mass.substr(0, r), std::string(r, '7'));
      EXPECT_EQ(lost.substr(0, r + 1), std::string(r + 1, '0'));
    }
}

// One call or many: the maps are of rows of the prompt, not of calls. A window of one part, and a sink.
TEST(Patterns, WhatAWindowLosesIsShown) {
  for (const int rows : {kTokens, 256}) {
    const auto p = patterns_of("streamingllm:sink=4:window=" + std::to_string(kPart), rows);
    double sum = 0;
    for (const auto& layer : p["density"])
      for (const auto& head : layer) sum += head.get<double>();
    EXPECT_NEAR(sum / (kLayers * kHq), p["all"].get<double>(), 1e-3);
    EXPECT_LT(p["all"], 0.5);
    ASSERT_EQ(p["maps"].size(), 6u);
    for (const auto& map : p["maps"])
      for (std::size_t r = 4; r < kParts; ++r) {
        const std::string kept = map["kept"][r], mass = map["mass"][r], lost = map["lost"][r];
        EXPECT_EQ(kept[0], '1');  // the sink
        EXPECT_EQ(kept[1], '0');
        EXPECT_EQ(kept[r], '9');
        EXPECT_EQ(mass.substr(0, r), std::string(r, '7'));
        EXPECT_EQ(lost.substr(0, 3), "777");
        EXPECT_EQ(lost[r], '0');
      }
  }
}

TEST(Patterns, AResetForgets) {
  Options o;
  o.patterns = true;
  o.audit = Audit::sample;
  auto s = std::move(Session::open(o).value());
  s->announce(kLayers, kTokens);
  EXPECT_EQ(patterns_of("", kTokens, true, s.get())["maps"].size(), 6u);
  s->reset_report();
  const auto report = nlohmann::json::parse(s->report_json());
  EXPECT_EQ(report["patterns"]["maps"].size(), 0u);
  EXPECT_EQ(report["patterns"]["density"].size(), 0u);
}

}  // namespace
}  // namespace lacuna
