// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The second step of XAttention's choice: from tiles of the strided product to kept blocks as bits.
#pragma once

#include <cstdint>

#include "kernel/cuda/estimate/strided.h"

namespace lacuna::kernel::cuda {

struct Gather {
  StridedGrid grid;
  std::int32_t nq = 0, nk = 0, block = 128, row_blocks = 0, key_blocks = 0;
  std::int32_t first_head = 0;  // of the launch, counted through the batch: where its lists begin
  std::int32_t words = 0;       // of a row's bits
  std::int64_t sink = 1, window = 1;
  float mass = 0.9f;
  bool all = false;             // keep what a row sees, and read no estimate
  const void* cells = nullptr;
  const float* maxima = nullptr;
  std::uint32_t* bits = nullptr;  // [heads of the batch][row_blocks][words]
  std::int32_t* counts = nullptr;
  float* estimate = nullptr;      // [heads of the batch][row_blocks][key_blocks] or null

#ifdef __CUDACC__
  // A strided row counts for the row block that holds its last row.
  __device__ int first_strided_row(int u) const {
    if (u >= row_blocks) return grid.rows;
    const int rows_before = u * block - grid.skip;
    return rows_before > 0 ? min(rows_before / grid.stride, grid.rows) : 0;
  }
#endif
};

std::int64_t gather_shared_bytes(const Gather& a);
// Of `heads` query heads; null = started, else CUDA's words.
const char* gather(const Gather& a, int heads, void* stream);

}  // namespace lacuna::kernel::cuda
