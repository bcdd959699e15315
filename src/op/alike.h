// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// op alike: how far the vectors of a block point one way (SpargeAttn, arXiv:2502.18137).
//   sim[h, b] = |sum over x of block b of u|^2 / n^2,  u = (x - less[h]) / |x - less[h]|
//   sum[h, b] = sum of its x, for who needs that too: the vectors are read once
// 1: all point one way; about 1/n: they point anywhere; 0: they cancel. Vectors that are 0 do not count in
// n, and a block of nothing else has 1. A block with a NaN or an infinity, its own or of `less`, has NaN.
#pragma once

#include <cstdint>

#include "lacuna/dtype.h"

namespace lacuna::op {

struct Alike {
  static constexpr const char* kName = "alike";

  struct Args {
    std::int32_t heads = 0, dim = 0, block = 0;
    std::int64_t n = 0;         // vectors of a head
    Dtype dtype = Dtype::f32;
    const void* x = nullptr;    // channels of vector i lie at h * head + (place ? place[i] : i) * row, in elements
    std::int64_t head = 0, row = 0;
    const std::int32_t* place = nullptr;
    const float* less = nullptr;  // [heads][dim], what is taken off first, as a mean of all vectors is; or null
    float* sim = nullptr;         // [heads][blocks()]
    float* sum = nullptr;         // [heads][blocks()][dim], or null
    std::int64_t blocks() const { return (n + block - 1) / block; }
  };
};

}  // namespace lacuna::op
