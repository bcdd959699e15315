// SPDX-License-Identifier: Apache-2.0
// fast_exp: exp(x) for x <= 0 as estimators need it: branch free, so that loops over it vectorise on
// any x86-64 without fast-math flags.
//   exp(x) = 2^n * 2^f,  x log2(e) = n + f,  |f| <= 1/2;  2^f by a polynomial of degree 5
// Relative error below 6e-6. Anything under -87 gives about 1e-38; NaN counts as -87: a score that is
// no number carries no mass.
#pragma once

#include <bit>
#include <cstdint>

namespace lacuna::block {

inline float fast_exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  // max(x, -87) in integers: of a choice between floats g++ makes a branch, and the loop stays scalar.
  const std::uint32_t under = 0u - static_cast<std::uint32_t>(!(x > -87.0f));
  const std::uint32_t end = std::bit_cast<std::uint32_t>(-87.0f) & under;
  const float t = std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) & ~under) | end) * 1.44269504f;
  const float shifted = t + kRound;
  const float f = t - (shifted - kRound);
  float p = 0.0013333558f;
  p = p * f + 0.0096181291f;
  p = p * f + 0.0555041087f;
  p = p * f + 0.2402265070f;
  p = p * f + 0.6931471806f;
  p = p * f + 1.0f;
  // The low bits of `shifted`, moved into the exponent field, multiply p by 2^n.
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23));
}

}  // namespace lacuna::block
