// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Element types that cross the interface.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lacuna {

enum class Dtype : std::uint8_t { f32, f16, bf16 };

constexpr std::size_t size_of(Dtype t) { return t == Dtype::f32 ? 4 : 2; }

constexpr const char* name_of(Dtype t) {
  switch (t) {
    case Dtype::f32: return "f32";
    case Dtype::f16: return "f16";
    case Dtype::bf16: return "bf16";
  }
  return "?";
}

// What the arithmetic may round to.
//   fast: bf16 products with f32 accumulation where the machine has bf16 units, else as high.
//   high: K and V keep every bit of their cache type, all arithmetic in f32.
enum class Precision : std::uint8_t { fast, high };

}  // namespace lacuna
