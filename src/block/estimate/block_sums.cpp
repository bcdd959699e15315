// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/block_sums.h"

#include <vector>

#include "block/slots.h"
#include "op/range_sums.h"

namespace lacuna::block {
namespace {

BlockSums sums_of(op::RangeSums::Args a, std::int32_t block, std::int64_t n, int slot, Context& context) {
  BlockSums out{.dim = a.dim, .block = block, .n = n};
  std::vector<std::int64_t> ends{0};  // of one block, where the next begins
  for (std::int64_t b = 0; b < out.blocks(); ++b) ends.push_back(b * block + out.size(b));
  float* sum = context.scratch_as<float>(slot, static_cast<std::size_t>(a.heads * out.blocks() * a.dim));
  a.ranges = static_cast<std::int32_t>(out.blocks());
  a.begin = ends.data();
  a.end = ends.data() + 1;
  a.sum = sum;
  context.run<op::RangeSums>(a);
  out.sum = sum;
  return out;
}

}  // namespace

BlockSums key_sums(const AttentionView& x, std::int32_t block, Context& context) {
  op::RangeSums::Args a;
  read_keys(a, x);
  return sums_of(a, block, x.grid.n_keys, kKeySumSlot, context);
}

BlockSums row_sums(const AttentionView& x, std::int32_t block, Context& context) {
  op::RangeSums::Args a;
  read_rows(a, x);
  return sums_of(a, block, x.grid.n_rows, kPoolSlot, context);
}

}  // namespace lacuna::block
