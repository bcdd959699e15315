// SPDX-License-Identifier: Apache-2.0
// Queries and keys as models tend to have them, so that a method has something to find: neighbours
// alike (each position's direction drifts), and every 1024th key a landmark that every row looks at.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"
#include "kv/quantise.h"
#include "lacuna/dtype.h"

namespace lacuna {

// q [nq][hq][d], k [nkv][hkv][d]; the rows are the last nq positions.
inline void make_up(std::int64_t hq, std::int64_t hkv, std::int64_t nq, std::int64_t nkv, std::int64_t dim, std::uint64_t seed,
                    std::vector<float>& q, std::vector<float>& k) {
  Rng rng(seed);
  const auto d = static_cast<std::size_t>(dim);
  q.resize(static_cast<std::size_t>(nq * hq) * d);
  k.resize(static_cast<std::size_t>(nkv * hkv) * d);
  const auto fresh = [&](std::vector<float>& x) {
    for (float& e : x) e = static_cast<float>(rng.normal());
  };
  for (std::int64_t g = 0; g < hkv; ++g) {
    std::vector<float> drift(d), landmark(d), step(d);
    fresh(drift);
    fresh(landmark);
    for (std::int64_t j = 0; j < nkv; ++j) {
      fresh(step);
      for (std::size_t x = 0; x < d; ++x) {
        drift[x] = 0.98f * drift[x] + 0.199f * step[x];  // variance stays 1
        const bool marked = j % 1024 == 0;
        k[static_cast<std::size_t>(j * hkv + g) * d + x] = marked ? 1.2f * landmark[x] : drift[x];
      }
      const std::int64_t row = j - (nkv - nq);
      if (row < 0) continue;
      for (std::int64_t h = g * (hq / hkv); h < (g + 1) * (hq / hkv); ++h)
        for (std::size_t x = 0; x < d; ++x)
          q[static_cast<std::size_t>(row * hq + h) * d + x] =
              0.8f * drift[x] + 0.6f * landmark[x] + 0.3f * static_cast<float>(rng.normal());
    }
  }
}

// Numbers as a cache of the type holds them.
inline std::vector<unsigned char> as_type(std::span<const float> x, Dtype type) {
  const auto n = static_cast<std::int64_t>(x.size());
  std::vector<unsigned char> out(static_cast<std::size_t>(bytes_of(type, n)));
  store_elements(out.data(), type, 0, x.data(), n);
  return out;
}

}  // namespace lacuna
