// SPDX-License-Identifier: Apache-2.0
// Estimate: exact attention of a call's last rows, summed along the lines in which attention is seen
// to lie: columns (one key, all rows) and diagonals (one distance, all rows). MInference
// (arXiv:2407.02490) and FlexPrefill (arXiv:2502.20766) choose their lines by these sums.
//   vertical[h, j] = sum over the last W rows i of P[i, j]
//   slash[h, d]    = sum over the last W rows i of P[i, own(i) - d]
#pragma once

#include "block/estimate/key_scores.h"
#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

struct LineSums {
  const float* vertical = nullptr;  // [heads][n_keys], in kColumnSlot; each head's sum is the number of rows
  const float* slash = nullptr;     // [heads][n_keys], in kSlashSlot
};

// `rows`: 1 .. x.grid.n_rows. Sums of heads that are not wanted are undefined.
LineSums last_rows(const AttentionView& x, std::int32_t rows, Context& context, Wanted wanted = {});

}  // namespace lacuna::block
