// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the backward has to know of every query row, as numbers that need no more thought:
//   x = lse / ln 2, so that p = exp2(scale s / ln 2 - x); +inf, and so p = 0, for rows that see nothing or are none
//   y = G . out - g
// In PrefillGrad::rows, for every head of a sequence: of each 64 rows first the 64 x, then the 64 y. As many rows as
// whole blocks of 128 have: lists name those.
#pragma once

#include <cstdint>

#include "kernel/cuda/prefill_grad.h"

namespace lacuna::kernel::cuda {

#ifdef __CUDACC__
#define LACUNA_ANYWHERE __host__ __device__
#else
#define LACUNA_ANYWHERE
#endif
LACUNA_ANYWHERE constexpr std::int64_t grad_rows_of_head(std::int64_t nq) { return (nq + 127) / 128 * 128; }

// Where x of a row stands, and y 64 numbers on; head counts through the batch.
LACUNA_ANYWHERE constexpr std::int64_t grad_row_at(std::int64_t head, std::int64_t row, std::int64_t nq) {
  return 2 * (head * grad_rows_of_head(nq) + row / 64 * 64) + row % 64;
}
#undef LACUNA_ANYWHERE

// Starts the kernel that fills a.rows with them; null = started, else CUDA's words.
const char* grad_rows(const PrefillGrad& a, void* stream);

}  // namespace lacuna::kernel::cuda
