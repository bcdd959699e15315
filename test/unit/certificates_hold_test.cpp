// SPDX-License-Identifier: Apache-2.0
// Certificates against inputs made to break them: in no decoded row does any head lose more than is said to be proved,
// by brute force in double precision, and with a limit no more than the limit.
#include <gtest/gtest.h>

#include <cctype>
#include <string>
#include <tuple>

#include <fmt/format.h>

#include "base/machine.h"
#include "support/planted_keys.h"

namespace lacuna::test {
namespace {

const char* const kMethods[] = {"streamingllm:sink=4:window=64", "quest:budget=48:page=8:layer_start=0:share=off",
                                "quest:budget=96:page=32:layer_start=0:share=on",
                                "quest:budget=96:page=16:layer_start=0+twilight:mass=0.8:layer_start=0",
                                "double-sparsity:budget=64:layer_start=0"};

class Certificates : public testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(Certificates, AreNeverViolated) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: nothing is left out";
  const Named& by = kPlants[std::get<0>(GetParam())];
  const std::string method = kMethods[std::get<1>(GetParam())];
  int sparse = 0;
  for (const char* how : {"", " precision=high", " machine=avx2"}) {
    auto tells = open_session(method + " certify=100% threads=1" + how),
         keeps = open_session(method + " certify=5% threads=1" + how);
    ASSERT_TRUE(tells && keeps);
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
      DecodeCase x = draw(by, seed);
      x.attend(*tells);
      for (int h = 0; h < x.hq; ++h) {
        EXPECT_LE(x.lost(h), x.bound[static_cast<std::size_t>(h)] + 1e-30) << how << " seed " << seed << " head " << h;
        sparse += x.bound[static_cast<std::size_t>(h)] > 0;
      }
      x.attend(*keeps);
      for (int h = 0; h < x.hq; ++h) {
        EXPECT_LE(x.lost(h), x.bound[static_cast<std::size_t>(h)] + 1e-30) << how << " seed " << seed << " head " << h;
        EXPECT_LE(x.bound[static_cast<std::size_t>(h)], 0.05f) << how << " seed " << seed << " head " << h;
      }
    }
  }
  EXPECT_GT(sparse, 0) << "nothing was ever left out";
}

INSTANTIATE_TEST_SUITE_P(All, Certificates,
                         testing::Combine(testing::Range(0, static_cast<int>(std::size(kPlants))),
                                          testing::Range(0, static_cast<int>(std::size(kMethods)))),
                         [](const auto& p) {
                           std::string method = kMethods[std::get<1>(p.param)];
                           for (char& c : method) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return fmt::format("{}_{}", kPlants[std::get<0>(p.param)].name, method);
                         });

}  // namespace
}  // namespace lacuna::test
