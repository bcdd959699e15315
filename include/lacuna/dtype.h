// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Element types that cross the interface.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lacuna {

// f32, f16, bf16: one number each.
// q8_0, q4_0: of K and V only, as llama.cpp has them (-ctk q8_0): 32 channels of a row are a block of one f16
// scale and 32 whole numbers; a channel is scale * number.
//   q8_0  34 bytes: scale, then 32 signed bytes                                      -128..127
//   q4_0  18 bytes: scale, then 16 bytes; byte i has channel i in its low four bits  number - 8: -8..7
//         and channel 16 + i in its high four
// A row's channels are a multiple of 32, and strides count elements in whole blocks. A scale that is no number
// makes its 32 channels NaN; an infinite one makes them infinite, and NaN where the number is 0.
enum class Dtype : std::uint8_t { f32, f16, bf16, q8_0, q4_0 };

constexpr bool is_quantised(Dtype t) { return t == Dtype::q8_0 || t == Dtype::q4_0; }

// Elements that are stored together, and the bytes they take.
constexpr std::int64_t block_size(Dtype t) { return is_quantised(t) ? 32 : 1; }
constexpr std::int64_t block_bytes(Dtype t) {
  switch (t) {
    case Dtype::f32: return 4;
    case Dtype::f16:
    case Dtype::bf16: return 2;
    case Dtype::q8_0: return 34;
    case Dtype::q4_0: return 18;
  }
  return 0;
}
// Of n elements, a whole number of blocks.
constexpr std::int64_t bytes_of(Dtype t, std::int64_t n) { return n / block_size(t) * block_bytes(t); }

constexpr const char* name_of(Dtype t) {
  switch (t) {
    case Dtype::f32: return "f32";
    case Dtype::f16: return "f16";
    case Dtype::bf16: return "bf16";
    case Dtype::q8_0: return "q8_0";
    case Dtype::q4_0: return "q4_0";
  }
  return "?";
}

// What the arithmetic may round to.
//   fast: bf16 products with f32 accumulation where the machine has bf16 units, else as high.
//   high: K and V keep every bit of their cache type, all arithmetic in f32.
enum class Precision : std::uint8_t { fast, high };

}  // namespace lacuna
