// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What blocks of neighbouring vectors have in common: their sums, how alike they are, and products of sums.
#pragma once

#include <cstdint>

#include "kernel/cuda/tensor.h"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda {

constexpr std::int32_t pooled_pitch(std::int32_t dim) { return (dim + 31) / 32 * 32; }  // numbers of a sum, with zeros

struct Pool {
  Dtype dtype = Dtype::bf16;
  Tensor4 x;
  std::int32_t batch = 1, heads = 1, n = 0, dim = 0, block = 128;
  const float* less = nullptr;  // [batch * heads][pitch], taken off before vectors are compared; or null
  float* sum = nullptr;         // [batch * heads][blocks][pitch] or null
  float* alike = nullptr;       // [batch * heads][blocks] or null: op/alike.h's sim
  std::int32_t blocks() const { return (n + block - 1) / block; }
};

// Each starts a kernel on `stream`; null = started, else CUDA's words.
const char* pool(const Pool& a, void* stream);
// mean[batch * heads][pitch] of all vectors, from the sums of blocks.
const char* pool_mean(const Pool& a, float* mean, void* stream);
// score[heads of q][rows][columns] = q_sum . k_sum, of the columns that a row block sees; others may be left alone.
struct PooledProduct {
  const float *q = nullptr, *k = nullptr;  // sums, [heads][rows][pitch] and [heads / group][columns][pitch]
  std::int32_t heads = 0, group = 1, rows = 0, columns = 0, pitch = 0;
  std::int32_t row_block = 128, block = 128, first_key = 0;
  float* score = nullptr;
};
const char* pooled_product(const PooledProduct& a, void* stream);

}  // namespace lacuna::kernel::cuda
