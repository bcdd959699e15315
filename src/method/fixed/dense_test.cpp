// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_dense();

namespace {

TEST(DenseMethod, LeavesNothingOutOfAnyCall) {
  test::MethodLab lab(2, 1, 70, 8);
  auto m = test::make(method_entry_dense());
  for (std::int64_t begin : {0, 1, 69}) {
    const auto p = lab.plan(*m, begin, 70);
    ASSERT_TRUE(p.ok());
    EXPECT_TRUE(test::is_dense(p.value()));
    EXPECT_TRUE(p.value().routes.empty());
  }
}

}  // namespace
}  // namespace lacuna::method
