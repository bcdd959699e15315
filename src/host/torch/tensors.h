// SPDX-License-Identifier: Apache-2.0
// PyTorch's tensors as Lacuna sees them: pointers and strides, one sequence of a batch at a time.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "lacuna/lacuna.h"

namespace lacuna::torch_host {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const char* name, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::BFloat16: return Dtype::bf16;
    default: throw std::invalid_argument(std::string(name) + ": need float32, float16 or bfloat16");
  }
}

// Whether a shape is what is expected; -1 in `need` is any size.
inline void check_shape(const char* name, const Tensor& t, std::initializer_list<std::int64_t> need) {
  bool good = t.dim() == static_cast<std::int64_t>(need.size());
  std::string got, want;
  std::int64_t i = 0;
  for (const std::int64_t n : need) {
    good = good && (n < 0 || t.size(i) == n);
    want += (i ? ", " : "") + (n < 0 ? std::string("any") : std::to_string(n));
    ++i;
  }
  for (i = 0; i < t.dim(); ++i) got += (i ? ", " : "") + std::to_string(t.size(i));
  if (!good) throw std::invalid_argument(std::string(name) + ": shape [" + got + "], need [" + want + "]");
}

// Sequence b of [B, H, N, D].
inline lacuna::Tensor sequence(const char* name, const Tensor& t, std::int64_t b) {
  lacuna::Tensor x;
  x.dtype = dtype_of(name, t);
  x.data = t.data_ptr();
  x.n[0] = 1;
  for (int i = 1; i < 4; ++i) {
    x.n[i] = t.size(i);
    // Where there is nothing to step over, PyTorch's strides may be anything.
    x.stride[i] = t.size(i) > 1 ? t.stride(i) : 0;
  }
  x.stride[3] = t.size(3) > 1 && t.numel() > 0 ? t.stride(3) : 1;
  if (x.data) x.data = static_cast<char*>(x.data) + bytes_of(x.dtype, b * t.stride(0));
  return x;
}

// Row b of a contiguous tensor whose first dimension is the batch.
template <class T>
T* row(const Tensor& t, std::int64_t b) {
  return t.size(0) > 0 ? static_cast<T*>(t.data_ptr()) + b * (t.numel() / t.size(0)) : nullptr;
}

}  // namespace lacuna::torch_host
