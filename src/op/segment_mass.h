// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op segment_mass: where the softmax of groups of score rows lies, by segments of columns.
//   mass[h, g, b] = sum over rows r of group g, columns c of segment b (c < end[r]) of
//                   softmax over the columns below end[r] of  scale score[h, r, c]
// A group's masses sum to its number of rows. A score that is no number carries no mass; how that of
// a row with a score of +infinity is spread is open. No mass is ever NaN.
#pragma once

#include <cstdint>

namespace lacuna::op {

struct SegmentMass {
  static constexpr const char* kName = "segment_mass";

  struct Args {
    std::int32_t heads = 0, groups = 0, columns = 0;
    const std::int32_t* group_ptr = nullptr;  // [groups + 1]: group g has the rows group_ptr[g] .. group_ptr[g + 1]
    const std::int32_t* end = nullptr;        // columns that each row sees, 1 .. columns
    // Element (h, r, c) at h * score_head + r * score_row + c; a row has room for its columns rounded up to
    // 16. Used up: what is left is undefined.
    float* score = nullptr;
    std::int64_t score_head = 0, score_row = 0;
    float scale = 1.0f;                       // > 0
    std::int32_t segment = 1;                 // columns of a segment
    float* mass = nullptr;                    // element (h, g, b) at h * mass_head + g * segments() + b
    std::int64_t mass_head = 0;
    std::int32_t segments() const { return (columns + segment - 1) / segment; }
  };
};

}  // namespace lacuna::op
