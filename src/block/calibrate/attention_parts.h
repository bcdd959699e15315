// SPDX-License-Identifier: Apache-2.0
// Exact attention of a few rows, kept in parts of some keys, so that what any choice of parts would give
// is a sum and no new attention: for searches over what may be left out.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "op/attention_view.h"

namespace lacuna::block {

// What leaving out changes: sum of |o - o'| and of |o| over rows and channels.
struct OutputError {
  double difference = 0, size = 0;
  double relative() const { return size > 0 ? difference / size : 0.0; }
};

class AttentionParts {
 public:
  // Every `step`-th row of rows [first, first + n) of query head h. A row block of `n` rows decides for
  // a part whether it is full: no row sees less than all of it.
  AttentionParts(const AttentionView& x, std::int32_t h, std::int32_t first, std::int32_t n, std::int32_t step,
                 std::int32_t part_keys);

  // Adds the error of keeping the blocks b with set[b] != 0, of block_k keys, a multiple of the parts'.
  // pv_skip in log2 units: full parts are left out where op/attend.h would for a group of one row.
  void add_error(const std::uint8_t* set, std::int32_t block_k, double pv_skip, OutputError& error) const;

 private:
  struct Row {
    std::vector<float> top;  // of each part: the largest score, in log2 units
    std::vector<float> sum;  // of 2^(score - the row's largest)
    std::vector<float> acc;  // [parts][dv]
    std::vector<double> exact;
  };
  std::int32_t part_keys_, dv_;
  std::vector<std::uint8_t> full_;
  std::vector<Row> rows_;
};

}  // namespace lacuna::block
