// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op attend: softmax attention of n_rows query rows over the cells that TileRuns names.
//
//   s[i, c]  = scale * q_i . k_c ; softcap > 0: s = softcap * tanh(s / softcap)
//              + slope[h] * bias[i, c] if a bias is given
//   out[i]   = sum_c p[i, c] v_c,  p = softmax over the visible c (and the sink's logit, if any)
//   lse[i]   = log sum_c exp(s[i, c])  (the sink included)
//
// A row that sees nothing: out 0, lse -inf. NaN or infinity in a visible q, k or v spreads to that
// row alone; in a cell that shares a tile (a gathered one too) with visible ones but is itself hidden,
// K never matters and V must be finite (packed copies of a cache are; the raw reference skips hidden
// cells altogether). Cells that no list names are not read.
//
// pv_skip: tiles whose weights no longer matter are left out once their scores are known. A kernel takes
// rows of a block in groups of its own choice, a tile of a list for each group: if the tile is FULL and
// not the list's last, and for every row of the group
//   (largest score of the tile - largest score the row met before, state included) log2(e) + pv_skip[h] <= 0
// then the tile counts for nothing in these rows, neither in out nor in lse nor in the state. A large
// group leaves out less; none leaves out a (row, tile) that a group of that row alone would not. Scores
// that are no numbers are never left out. A skipped key weighed at most 2^-pv_skip of the row's largest.
//
// GQA: KV head of query head h is h / (hq / hkv). Batches are a loop above this op.
#pragma once

#include <cstdint>

#include "kv/packed.h"
#include "lacuna/dtype.h"
#include "pattern/tile_runs.h"

namespace lacuna::op {

struct Attend {
  static constexpr const char* kName = "attend";

  // Resumable softmax state of every (head, row): running maximum m (natural-log units), sum l of
  // exp(s - m), unnormalised accumulator acc. Fresh state: m = -inf, l = 0, acc = 0.
  struct State {
    float* m = nullptr;    // [hq][n_rows]
    float* l = nullptr;    // [hq][n_rows]
    float* acc = nullptr;  // [hq][n_rows][dv]
  };

  struct Args {
    std::int32_t hq = 0, hkv = 0, dk = 0, dv = 0, n_rows = 0;
    std::int64_t n_cells = 0;

    const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
    std::int64_t q_head = 0, q_row = 0;

    // Raw K and V, element (h, c, d) at h * head + c * cell + d. The reference reads these; fast
    // kernels read the packed copies, and these for the cells of gathered tiles. Without packed copies
    // (format none) kernels for few rows read these alone; no cell from n_cells on.
    const void* k = nullptr;
    const void* v = nullptr;
    Dtype k_type = Dtype::f16, v_type = Dtype::f16;
    std::int64_t k_head = 0, k_cell = 0, v_head = 0, v_cell = 0;
    PackedView packed_k, packed_v;

    TileRuns runs;
    Precision precision = Precision::fast;

    float scale = 1.0f;
    float softcap = 0.0f;          // 0 = none
    const float* sinks = nullptr;  // [hq] logits, or null

    const std::uint16_t* bias = nullptr;  // f16 [n_rows][n_cells], row stride bias_row; or null
    std::int64_t bias_row = 0;
    const float* slope = nullptr;  // [hq]; null = 1 for every head

    const float* pv_skip = nullptr;  // [hq] >= 0 in log2 units, infinity = never; null = off

    float* out = nullptr;  // element (h, i, d) at h * out_head + i * out_row + d
    std::int64_t out_head = 0, out_row = 0;
    float* lse = nullptr;  // [hq][n_rows], or null

    State resume;           // if m is set: continue from this state and write it back;
    bool normalise = true;  // then out and lse are written only if `normalise`
  };
};

}  // namespace lacuna::op
