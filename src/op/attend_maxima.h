// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op attend_maxima: where the probabilities of causal attention are largest, once its log-sum-exp is known
// (op attend's lse, in natural units; with sinks or without, as it was made).
//
//   P[h, i, j]         = exp(scale q[h, i] . k[h, j] - lse[h, i])  for keys j <= own(i) = first_key + i,  else 0
//   block_max[h, g, b] = max over rows i of row block g and keys j of key block b of P[h, i, j]
//   block_sum[h, g, b] = sum over the same
//   key_max[y, j]      = max over the rows of a query head, or of the query heads of a KV head, of P[h, i, j]
//
// Targets of learned gates (SeerAttention, arXiv:2410.13276), blocks that later layers reuse (HySparse, TidalDecode,
// arXiv:2410.05076), what a choice of blocks missed. The scores never leave the caches of the core that makes them.
//
// P is at most 1: what rounding puts above, and a score of +infinity, counts as 1. A score that is no number, and a P
// below 2^-60, count as anything from 0 to 2^-60. A row that sees nothing (own(i) < 0) or whose lse is not finite has
// P = 0. No output is ever NaN, and all of it is written. K comes packed; key j lies in cell first_cell + j, and
// first_cell is a multiple of 16.
#pragma once

#include <cstdint>

#include "kv/packed.h"

namespace lacuna::op {

struct AttendMaxima {
  static constexpr const char* kName = "attend_maxima";

  struct Args {
    std::int32_t hq = 0, hkv = 0, dk = 0, n_rows = 0;
    std::int64_t n_keys = 0, first_cell = 0;
    std::int64_t first_key = 0;  // own key of row 0, may be negative; first_key + n_rows <= n_keys
    const float* q = nullptr;    // element (h, i, d) at h * q_head + i * q_row + d
    std::int64_t q_head = 0, q_row = 0;
    PackedView packed_k;
    float scale = 1.0f;          // > 0
    const float* lse = nullptr;  // [hq][n_rows]
    std::int32_t block_q = 1;    // rows of a row block
    std::int32_t block_k = 64;   // keys of a key block
    float *block_max = nullptr, *block_sum = nullptr;  // [hq][row_blocks()][key_blocks()], or null
    float* key_max = nullptr;    // [hq][n_keys], or [hkv][n_keys] if `by_group`; or null
    bool by_group = false;
    std::int64_t row_blocks() const { return (n_rows + block_q - 1) / block_q; }
    std::int64_t key_blocks() const { return (n_keys + block_k - 1) / block_k; }
  };
};

}  // namespace lacuna::op
