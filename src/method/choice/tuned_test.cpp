// SPDX-License-Identifier: Apache-2.0
// tuned alone: without a profile, and as the keeper of what was tried. With profiles: test/unit/tuned_use_test.cpp.
#include <gtest/gtest.h>

#include "method/calibrator.h"
#include "method/trial_sums.h"
#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_tuned();
namespace {

TEST(Tuned, WithoutAProfileItIsDenseAndSaysSo) {
  test::MethodLab lab(4, 2, 300, 16);
  const auto method = test::make(method_entry_tuned());
  EXPECT_TRUE(method->parts().empty());
  const Plan p = lab.plan(*method, 0, 300).value();
  EXPECT_TRUE(is_dense(p));
  EXPECT_NE(p.why.find("lacuna tune"), std::string::npos);
}

TEST(Tuned, KeepsWhatWasTriedByBandLayerMethodAndHead) {
  const auto calibrator = test::make(method_entry_tuned())->calibrator();
  TrialSums empty;
  empty.methods = {"a", "b"};
  empty.bands = {1000, 2000};
  ASSERT_TRUE(calibrator->load(as_json(empty)).ok());
  EXPECT_EQ(calibrator->trials(), empty.methods);
  const auto tried = [&](int layer, std::int64_t keys, std::size_t method, double kept, double lost) {
    const std::vector<double> k = {kept, 2 * kept}, l = {lost, 2 * lost};
    calibrator->tried({.layer = layer, .keys = keys, .method = method, .rows = 8, .pairs = 100, .kept = k, .lost = l});
  };
  for (const int layer : {0, 2}) {  // a layer without attention between them
    tried(layer, 1000, 0, 10, 1);
    tried(layer, 1000, 1, 20, 2);
  }
  tried(0, 1001, 0, 30, 3);
  tried(0, 900, 0, 40, 4);
  tried(0, 2001, 0, 50, 5);  // beyond the last band
  const TrialSums s = trial_sums(calibrator->save(), "s").value();
  ASSERT_EQ(s.layers, 3);
  EXPECT_EQ(s.longest, 1001);
  EXPECT_EQ(s.cell(0, 0).rows, 16);
  EXPECT_EQ(s.cell(0, 0).pairs, 200);
  EXPECT_EQ(s.cell(0, 0).kept[s.at(0, 1)], 100);
  EXPECT_EQ(s.cell(0, 0).lost[s.at(1, 0)], 2);
  EXPECT_EQ(s.cell(0, 1).rows, 0);
  EXPECT_EQ(s.cell(0, 2).kept[s.at(1, 1)], 40);
  EXPECT_EQ(s.cell(1, 0).kept[s.at(0, 0)], 30);
}

}  // namespace
}  // namespace lacuna::method
