// SPDX-License-Identifier: Apache-2.0
// Tensor: a typed, strided look at memory somebody else owns. Dimensions are always
// [B, H, N, D]: batch, heads, tokens (or cache cells), channels. Other orders are strides; the
// channels must lie side by side (stride[3] == 1). Of quantised types, channels and strides are multiples
// of block_size(dtype).
#pragma once

#include <cstdint>

#include "lacuna/dtype.h"

namespace lacuna {

struct Tensor {
  void* data = nullptr;
  Dtype dtype = Dtype::f32;
  std::int64_t n[4] = {0, 0, 0, 0};
  std::int64_t stride[4] = {0, 0, 0, 1};  // in elements

  std::int64_t batch() const { return n[0]; }
  std::int64_t heads() const { return n[1]; }
  std::int64_t tokens() const { return n[2]; }
  std::int64_t dim() const { return n[3]; }
  explicit operator bool() const { return data != nullptr; }

  char* row(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return static_cast<char*>(data) +
           bytes_of(dtype, b * stride[0] + h * stride[1] + i * stride[2]);
  }
};

// A tensor of shape [B, H, N, D] in C order.
inline Tensor contiguous(void* data, Dtype dtype, std::int64_t b, std::int64_t h, std::int64_t n,
                         std::int64_t d) {
  return {data, dtype, {b, h, n, d}, {h * n * d, n * d, d, 1}};
}

// The same with the heads of one token side by side, [B, N, H, D] in memory: a KV cache's layout.
inline Tensor token_major(void* data, Dtype dtype, std::int64_t b, std::int64_t h, std::int64_t n,
                          std::int64_t d) {
  return {data, dtype, {b, h, n, d}, {h * n * d, d, h * d, 1}};
}

}  // namespace lacuna
