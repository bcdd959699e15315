// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op top_weights: of every row of weights the largest ones, in descending order, as long as their number is
// <= count and their sum <= mass * the sum of all. Equal weights: the lower column first. The first `forced`
// columns are always in; they are part of the number and of the sum.
// Sums are f32: which of weights closer than that ends the list is open. By count alone (mass >= 1) it is not.
#pragma once

#include <cstdint>

namespace lacuna::op {

struct TopWeights {
  static constexpr const char* kName = "top_weights";

  struct Args {
    std::int32_t rows = 0, n = 0;    // columns
    const float* weight = nullptr;   // element (r, c) at r * weight_row + c; finite, >= 0
    std::int64_t weight_row = 0;
    std::int32_t forced = 0;
    const std::int32_t* count = nullptr;  // of each row; null: any number
    float mass = 1;                  // from 1 on: any sum
    std::uint32_t* kept = nullptr;   // written if set: bit b of word r * kept_row + t: column 32 t + b
    std::int64_t kept_row = 0;       // words, columns / 32 rounded up or more
    std::int32_t* taken = nullptr;   // written if set: how many columns of each row
  };
};

}  // namespace lacuna::op
