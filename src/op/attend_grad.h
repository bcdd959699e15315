// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op attend_grad: the gradients of op attend (op/attend.h, whose letters these are). With G the gradient of
// some loss by `out`, and g that by `lse`:
//   p[i, c]  = exp(s[i, c] - lse[i])                     remade from q, k and the lse of forward
//   delta[i] = G_i . out_i                               given, or made from out
//   e[i, c]  = p[i, c] (G_i . v_c - delta[i] + g[i])     gradient by the score that enters the softmax
//   ds[i, c] = e[i, c] (1 - (s / softcap)^2)             by scale * q . k; without a soft-cap ds = e
//   dq[i]    = scale sum_c ds[i, c] k_c
//   dk[c]    = scale sum_i ds[i, c] q_i                  over the rows of all query heads of the KV head
//   dv[c]    =       sum_i  p[i, c] G_i
//   d_key_bias[c] = sum_i e[i, c]                        of a number added to every score of a key
//   d_sinks[h]    = sum_i exp(sinks[h] - lse[i]) (g[i] - delta[i])
// (Dao et al., arXiv:2205.14135, and the sink as one more key without a value.) A selection is a constant.
//
// All that is asked for is written whole: 0 for rows that see nothing (lse -inf) and for cells nobody sees. q, out,
// G and lse of rows that see nothing, and K and V of cells that no row sees, do not matter. Any other number that is
// not finite reaches the gradients of its own row or cell, and may reach those of rows and cells that meet it in a
// row block or a tile, and no others: a KV head, or a pair of a row block and a tile that no list names, is a wall.
//
// Bits do not depend on the order of tasks; they may on the number of workers.
#pragma once

#include <cstdint>

#include "op/attend.h"
#include "pattern/inverse_runs.h"

namespace lacuna::op {

struct AttendGrad {
  static constexpr const char* kName = "attend_grad";

  struct Args {
    // As forward had it. `out` and `lse` are read here. Packed copies are not: K and V come raw. Without
    // gradient, and refused by why_not_differentiable: bias, pv_skip, resume, quantised K or V.
    Attend::Args forward;
    // Of forward.runs, by invert() (pattern/invert.h). The reference does without.
    InverseRuns inverse;

    const float* d_out = nullptr;  // G: element (h, i, d) at h * d_out_head + i * d_out_row + d
    std::int64_t d_out_head = 0, d_out_row = 0;
    const float* d_lse = nullptr;  // g: [hq][n_rows]; null = 0
    const float* delta = nullptr;  // [hq][n_rows]; null: made from forward.out

    // Written; null = not asked for. Strides in elements, channels side by side, none may overlap.
    float* d_q = nullptr;
    std::int64_t d_q_head = 0, d_q_row = 0;
    float* d_k = nullptr;  // element (KV head, c, d) at head * d_k_head + c * d_k_cell + d
    std::int64_t d_k_head = 0, d_k_cell = 0;
    float* d_v = nullptr;
    std::int64_t d_v_head = 0, d_v_cell = 0;
    float* d_key_bias = nullptr;  // [bias_heads][n_cells]
    std::int32_t bias_heads = 0;  // hq, or hkv: then summed over the query heads of a KV head
    float* d_sinks = nullptr;     // [hq]; needs forward.sinks
  };
};

// What is in a call that no kernel differentiates, the reference neither; null = nothing.
const char* why_not_differentiable(const AttendGrad::Args& a);

}  // namespace lacuna::op
