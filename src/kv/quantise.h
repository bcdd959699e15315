// SPDX-License-Identifier: Apache-2.0
// Numbers into raw K or V tensors of any type: for made-up problems and tests. A host fills its own caches.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "lacuna/dtype.h"

namespace lacuna {

// 32 numbers into a block of a quantised type. The scale is that of the number of largest size, which becomes
// 127 or -127 of q8_0 and the -8 of q4_0; so 8 bits lose up to 1/254 of it, 4 bits 1/8 on the other side. One that is
// no number, or infinite, makes all 32 so.
inline void quantise_block(const float* x, Dtype t, char* block) {
  float largest = 0;
  for (int i = 0; i < 32; ++i)
    if (!(std::fabs(x[i]) <= std::fabs(largest)) && largest == largest) largest = x[i];
  const float scale = t == Dtype::q8_0 ? std::fabs(largest) / 127.0f : largest / -8.0f;
  const float inverse = std::isfinite(scale) && scale != 0 ? 1.0f / scale : 0.0f;
  const std::uint16_t half = float_to_half(scale);
  std::memcpy(block, &half, sizeof half);
  const auto number = [&](int i, int least, int most) {
    if (!std::isfinite(scale)) return t == Dtype::q8_0 && largest < 0 ? -1 : 1;
    return std::clamp(static_cast<int>(std::nearbyint(x[i] * inverse)), least, most);
  };
  char* to = block + sizeof half;
  if (t == Dtype::q8_0)
    for (int i = 0; i < 32; ++i) to[i] = static_cast<char>(number(i, -127, 127));
  else
    for (int i = 0; i < 16; ++i) to[i] = static_cast<char>((number(i, -8, 7) + 8) | ((number(16 + i, -8, 7) + 8) << 4));
}

// x[0 .. n) to the elements from `first` on; of quantised types first and n are multiples of 32.
inline void store_elements(void* base, Dtype t, std::int64_t first, const float* x, std::int64_t n) {
  char* to = static_cast<char*>(base) + bytes_of(t, first);
  if (is_quantised(t)) {
    for (std::int64_t i = 0; i < n; i += 32, to += block_bytes(t)) quantise_block(x + i, t, to);
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    if (t == Dtype::f32) reinterpret_cast<float*>(to)[i] = x[i];
    else reinterpret_cast<std::uint16_t*>(to)[i] = t == Dtype::f16 ? float_to_half(x[i]) : float_to_bf16(x[i]);
  }
}

}  // namespace lacuna
