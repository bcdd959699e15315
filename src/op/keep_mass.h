// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op keep_mass: of every row of scores the fewest columns that carry a share of its softmax (top-p).
//   w_c = exp(scale (s_c - max s)),  kept: w_c > t, t the largest with  sum of w above t >= mass * sum of w
// Equal weights stay or go together (Lin et al., arXiv:2502.02770). A score of -infinity is no candidate
// and never kept; in a row with a score of +infinity, which stands for what cannot be judged, every
// candidate is. Weights and their sums are f32: which of weights closer than that carry the mass is open.
#pragma once

#include <cstdint>

namespace lacuna::op {

struct KeepMass {
  static constexpr const char* kName = "keep_mass";

  struct Args {
    std::int32_t rows = 0;
    std::int64_t n = 0;            // columns, a multiple of 32
    const float* score = nullptr;  // element (r, c) at r * score_row + c; no NaN
    std::int64_t score_row = 0;
    float scale = 1;               // >= 0
    float mass = 1;                // 0 < mass < 1
    std::uint32_t* kept = nullptr;  // written: bit b of word r * kept_row + t: column 32 t + b
    std::int64_t kept_row = 0;
  };
};

}  // namespace lacuna::op
