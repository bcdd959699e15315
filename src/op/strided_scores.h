// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op strided_scores: sums of q.k along the antidiagonals of S x S squares (XAttention, arXiv
// 2503.16428). With S = 1 it is plain Q K^T.
//
//   score[h, m, n] = sum over s in [0, S) of  q[h, m*S + S-1-s] . k[h, n*S + s]
//
// Rows past n_rows and keys past n_keys count as zeros. K comes packed (the cache's side copy); key j
// lies in cell first_cell + j, and first_cell is a multiple of 16.
#pragma once

#include <cstdint>

#include "kv/packed.h"

namespace lacuna::op {

struct StridedScores {
  static constexpr const char* kName = "strided_scores";

  struct Args {
    std::int32_t stride = 8;  // S: 1, 2, 4, 8 or 16
    std::int32_t hq = 0, hkv = 0, dk = 0, n_rows = 0;
    std::int64_t n_keys = 0, first_cell = 0;
    const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
    std::int64_t q_head = 0, q_row = 0;
    PackedView packed_k;
    // [hq][m_rows()][score_row]; columns >= n_cols() are left alone. Row m may skip columns
    // n >= causal_end(m): nobody reads them.
    float* score = nullptr;
    std::int64_t score_row = 0;
    std::int64_t first_key_of_row0 = 0;  // key index of query row 0, for the causal skip; -1: no skip

    std::int64_t m_rows() const { return (n_rows + stride - 1) / stride; }
    std::int64_t n_cols() const { return (n_keys + stride - 1) / stride; }
    // A row of scores that kernels write quickly: whole cache lines, an odd number of them, so that rows share no
    // cache set.
    std::int64_t good_row() const { return ((n_cols() + 15) / 16 | 1) * 16; }
    std::int64_t causal_end(std::int64_t m) const {
      if (first_key_of_row0 < 0) return n_cols();
      const std::int64_t end = first_key_of_row0 / stride + m + 1;
      return end < n_cols() ? end : n_cols();
    }
  };
};

}  // namespace lacuna::op
