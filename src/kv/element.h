// SPDX-License-Identifier: Apache-2.0
// One number of a raw K or V tensor, of any type that crosses the interface, exactly: a quantised one is
// an f16 times a whole number of 8 bits, which an f32 holds. For references, calibration and tests.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "lacuna/dtype.h"

namespace lacuna {

// `at` counts elements from base; of quantised types base begins a block.
inline float element(const void* base, Dtype t, std::int64_t at) {
  switch (t) {
    case Dtype::f32: return static_cast<const float*>(base)[at];
    case Dtype::f16: return half_to_float(static_cast<const std::uint16_t*>(base)[at]);
    case Dtype::bf16: return bf16_to_float(static_cast<const std::uint16_t*>(base)[at]);
    case Dtype::q8_0:
    case Dtype::q4_0: break;
  }
  const std::int64_t size = block_size(t), i = at % size;
  const char* block = static_cast<const char*>(base) + at / size * block_bytes(t);
  std::uint16_t scale;
  std::memcpy(&scale, block, sizeof scale);
  const char* numbers = block + sizeof scale;
  if (t == Dtype::q8_0) return half_to_float(scale) * static_cast<float>(static_cast<signed char>(numbers[i]));
  const auto both = static_cast<unsigned char>(numbers[i % 16]);
  return half_to_float(scale) * static_cast<float>((i < 16 ? both & 15 : both >> 4) - 8) + 0.0f;  // cleared: 0, not -0
}

}  // namespace lacuna
