// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_auto();
namespace {

TEST(Auto, NamesItsCandidatesByPhaseAndTheLimit) {
  const auto all = test::make(method_entry_auto(), {{"max_loss", 0.02}})->candidates();
  ASSERT_TRUE(all);
  EXPECT_EQ(all->prefill, std::vector<std::string>{"xattention"});
  EXPECT_EQ(all->decode, std::vector<std::string>{"quest"});
  EXPECT_EQ(all->max_loss, 0.02);
}

}  // namespace
}  // namespace lacuna::method
