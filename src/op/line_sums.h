// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op line_sums: exact attention of a few rows, summed along the lines in which attention is seen to lie:
// columns (one key, all rows) and diagonals (one distance, all rows).
//
//   P[h, i, j]     = softmax over the keys j <= own(i) of  scale q[h, i] . k[h, j],   own(i) = first_key + i
//   vertical[h, j] = sum over the rows i of P[h, i, j]
//   slash[h, d]    = sum over the rows i of P[h, i, own(i) - d]
//
// The scores themselves, rows x keys of them, never leave the caches of the core that makes them: that is
// why this is one op and not two. A score that is no number carries no mass; how that of a row with a score
// of +infinity is spread is open. No sum is ever NaN, and each head's are n_rows. Weights may be rounded to bf16, and the
// sums of P be off by 2^-8 of themselves: the scores of bf16 keys are known no better. K comes packed; key j lies in cell
// first_cell + j, and first_cell is a multiple of 16.
#pragma once

#include <cstdint>

#include "kv/packed.h"

namespace lacuna::op {

struct LineSums {
  static constexpr const char* kName = "line_sums";

  struct Args {
    std::int32_t hq = 0, hkv = 0, dk = 0, n_rows = 0;
    std::int64_t n_keys = 0, first_cell = 0;
    std::int64_t first_key = 0;  // own key of row 0; first_key + n_rows <= n_keys
    const float* q = nullptr;    // element (h, i, d) at h * q_head + i * q_row + d
    std::int64_t q_head = 0, q_row = 0;
    PackedView packed_k;
    float scale = 1.0f;          // > 0
    float *vertical = nullptr, *slash = nullptr;  // [hq][n_keys], all of it written
  };
};

}  // namespace lacuna::op
