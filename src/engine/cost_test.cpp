// SPDX-License-Identifier: Apache-2.0
#include "engine/cost.h"

#include <cstdlib>
#include <filesystem>

#include <gtest/gtest.h>

#include "engine/measure_cost.h"

namespace lacuna {
namespace {

CallShape shape() {
  CallShape s;
  s.hq = 2;
  s.dk = s.dv = 16;
  return s;
}

TEST(Cost, TextComesBackAsItWas) {
  CostModel m;
  m.prefill = {1e-6, 2e-9, {{"xattention", {1e-5, 2e-8, 3e-10}, 4e-9}}};
  m.decode = {5e-6, 6e-9, {{"quest", {7e-6, 8e-9, 0}, 9e-9}}};
  const auto back = parse_costs(cost_text(m, shape()), shape(), {"xattention"}, {"quest"});
  ASSERT_TRUE(back.ok()) << back.error().what;
  EXPECT_EQ(back.value().prefill.candidates[0].select.pair, 3e-10);
  EXPECT_EQ(back.value().decode.candidates[0].pair, 9e-9);
  EXPECT_EQ(back.value().decode.call, 5e-6);
}

TEST(Cost, AFileOfSomethingElseIsRefusedByName) {
  const std::string good = cost_text({}, shape());
  CallShape other = shape();
  other.hq = 4;
  EXPECT_NE(parse_costs(good, other, {}, {}).error().what.find("costs.shape"), std::string::npos);
  EXPECT_NE(parse_costs(good, shape(), {"xattention"}, {}).error().what.find("prefill.candidates"), std::string::npos);
  std::string bad = good;
  bad.replace(bad.find("\"pair\": 0"), 9, "\"pair\":-1");
  EXPECT_NE(parse_costs(bad, shape(), {}, {}).error().what.find("pair"), std::string::npos);
  for (const char* text : {"", "[]", "{}", "{\"format\": \"lacuna-costs\"}"}) EXPECT_FALSE(parse_costs(text, shape(), {}, {}).ok());
}

TEST(Cost, BreakEvenIsWhereBothCostTheSame) {
  const PhaseCost p{0, 2, {{"a", {0, 0, 0.5}, 2.5}}};
  const double density = p.break_even(0, 10, 100, 1000);
  EXPECT_NEAR(p.sparse(0, 10, 100, 1000, density), p.dense(1000), 1e-9);
}

// Measured once: the second time the file answers, and says the same to the last bit.
TEST(Cost, IsMeasuredOnceAndKept) {
  if (!(detect_features() & kAvx2)) GTEST_SKIP() << "no AVX2: no estimator runs";
  const auto folder = std::filesystem::temp_directory_path() / ("lacuna-cost-test-" + std::to_string(getpid()));
  setenv("LACUNA_CACHE", folder.c_str(), 1);
  CallShape s = shape();
  s.features = detect_features();
  Options like;
  like.threads = 1;
  const auto first = costs_of_machine(s, like, {"xattention"}, {"quest"});
  ASSERT_TRUE(first.ok()) << first.error().what;
  EXPECT_GT(first.value().prefill.pair, 0);
  EXPECT_GT(first.value().prefill.candidates[0].pair, 0);
  EXPECT_GT(first.value().decode.candidates[0].select.key, 0);
  ASSERT_TRUE(std::filesystem::exists(cost_file(s, {"xattention"}, {"quest"})));
  const auto second = costs_of_machine(s, like, {"xattention"}, {"quest"});
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(cost_text(first.value(), s), cost_text(second.value(), s));
  unsetenv("LACUNA_CACHE");
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace lacuna
