// SPDX-License-Identifier: Apache-2.0
// The test that stands beside a method: the proofs of its sheet. The laws that hold for all methods
// need no line here; test/conformance walks the registry.
#include <gtest/gtest.h>

#include "test/support/method_lab.h"

namespace lacuna::method {
const MethodEntry& method_entry_skeleton();

namespace {

using test::is_dense;
using test::keeps;
using test::make;
using test::MethodLab;

TEST(Skeleton, EveryBlockIsDense) {
  MethodLab lab(2, 1, 300, 8);  // query heads, KV heads, tokens, channels: random q, k, v
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_skeleton(), {{"every", 1}}), 0, 300).value()));
  EXPECT_FALSE(is_dense(lab.plan(*make(method_entry_skeleton(), {{"every", 2}}), 0, 300).value()));
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_skeleton()), 299, 300).value())) << "decode";
}

// The mask against the formula, written a second time and simply: per row, not per block.
TEST(Skeleton, KeepsWhatItsFormulaSaysForChunksOfAnyResidue) {
  for (std::int64_t begin : {0, 1, 63, 64, 100})
    for (std::int64_t end : {begin + 2, begin + 65, begin + 200}) {
      MethodLab lab(1, 1, end, 8);
      auto m = make(method_entry_skeleton(), {{"every", 3}, {"block", 64}, {"sink", 1}, {"window", 10}});
      auto p = lab.plan(*m, begin, end);
      ASSERT_TRUE(p.ok());
      ASSERT_TRUE(std::get<BlockMap>(p.value().pattern()).check().ok());
      const Grid g{1, static_cast<std::int32_t>(end - begin), end, begin};
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t j = 0; j <= i; ++j) {
          const std::int64_t first_of_block = begin + (i - begin) / 64 * 64;  // oldest row in i's row block
          const std::int64_t newest = std::max<std::int64_t>(0, first_of_block - 9) / 64 * 64;
          ASSERT_EQ(keeps(p.value(), g, 0, static_cast<std::int32_t>(i - begin), j),
                    j / 64 % 3 == 0 || j == 0 || j >= newest)
              << "rows " << begin << ".." << end << " i=" << i << " j=" << j;
        }
    }
}

TEST(Skeleton, NamesABadBlock) {
  const Status s = make(method_entry_skeleton(), {{"block", 100}})->check();
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("skeleton.block: got 100, need a multiple of 16"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::method
