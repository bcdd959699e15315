// SPDX-License-Identifier: Apache-2.0
// ggml's element types that we take, as ours.
#pragma once

#include "host/ggml/abi.h"
#include "lacuna/dtype.h"

namespace lacuna::ggml {

constexpr bool taken(int type) {
  return type == type_f32 || type == type_f16 || type == type_bf16 || type == type_q8_0 || type == type_q4_0;
}

constexpr Dtype dtype_of(int type) {  // of a taken one
  switch (type) {
    case type_f16: return Dtype::f16;
    case type_bf16: return Dtype::bf16;
    case type_q8_0: return Dtype::q8_0;
    case type_q4_0: return Dtype::q4_0;
    default: return Dtype::f32;
  }
}

// Bytes of what lies together: an element, or a block of 32. ggml's nb[0].
constexpr std::size_t unit_bytes(int type) { return static_cast<std::size_t>(block_bytes(dtype_of(type))); }

// A stride in bytes, a whole number of units, in elements.
constexpr std::int64_t elements_in(int type, std::size_t bytes) {
  return static_cast<std::int64_t>(bytes / unit_bytes(type)) * block_size(dtype_of(type));
}

}  // namespace lacuna::ggml
