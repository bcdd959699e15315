// SPDX-License-Identifier: Apache-2.0
// Estimate: how much attention each block of rows pays to each block of keys, from sums of q.k along
// the antidiagonals of S x S squares (op strided_scores; XAttention, arXiv:2503.16428).
//
//   A[m, n] = softmax over n <= own square of m  of  score[m, n] * scale / (S * norm)
//   mass[h, u, b] = sum of A over the strided rows m of row block u and the squares n of key block b
//
// Squares lie on a grid fixed to the KEYS: column n covers keys nS .. nS+S-1, and a strided row covers
// the S rows whose own keys make up one such column. So the squares of a chunk are those of the whole
// prompt, whatever its first key, and no square reaches past the own key of its last row. Where a
// chunk begins inside a square, its first rows (at most S - 1) have no strided row of their own: the
// rest of their block votes for them. A strided row counts for the row block that holds its last row,
// so a block never hears of rows after its own.
#pragma once

#include <cstdint>

#include "kv/packed.h"
#include "op/context.h"
#include "pattern/pattern.h"

namespace lacuna::block {

struct Antidiagonal {
  Grid grid;
  std::int32_t hkv = 1, dk = 0;
  const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
  std::int64_t q_head = 0, q_row = 0;
  PackedView packed_k;          // key j lies in cell first_cell + j
  std::int64_t first_cell = 0;  // a multiple of 16

  std::int32_t stride = 8;   // S: a power of two, 1..16
  std::int32_t block = 128;  // rows and keys of a block: a multiple of S
  float scale = 1.0f;        // of the model's scores
  float norm = 1.0f;         // > 1 flattens the estimate

  // Rows before the first whole square.
  std::int32_t skipped() const { return static_cast<std::int32_t>((stride - grid.first_key % stride) % stride); }
  std::int64_t strided_rows() const {
    return grid.n_rows > skipped() ? (grid.n_rows - skipped() + stride - 1) / stride : 0;
  }
  std::int32_t row_blocks() const { return (grid.n_rows + block - 1) / block; }
  std::int64_t key_blocks() const { return (grid.n_keys + block - 1) / block; }
  // First strided row that counts for row block u; u == row_blocks() gives the end.
  std::int64_t first_strided_row(std::int32_t u) const {
    if (u >= row_blocks()) return strided_rows();
    const std::int64_t rows = std::int64_t{u} * block - skipped();
    return rows > 0 ? rows / stride : 0;
  }
};

// Returns mass [heads][row_blocks()][key_blocks()] in kMassSlot. A block's masses sum to the number of
// its strided rows. Needs strided_rows() >= 1. Scores need at most about 32 MB of scratch, or one row
// block's worth if that is more.
const float* antidiagonal_mass(const Antidiagonal& a, Context& context);

}  // namespace lacuna::block
