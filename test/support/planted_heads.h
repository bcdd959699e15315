// SPDX-License-Identifier: Apache-2.0
// PlantedHeads: a MethodLab whose three heads attend in the three shapes of MInference.
//   0  the first four keys, and its neighbours: queries and keys drift slowly in the same direction
//   1  twelve columns in as many blocks, and the keys at a distance of 517
//   2  all keys of three blocks, which differ from row block to row block
// Each is out of reach for the other two shapes at a fifth of the keys.
#pragma once

#include <cmath>

#include "test/support/method_lab.h"

namespace lacuna::test {

struct PlantedHeads : MethodLab {
  static constexpr int kColumns = 12, kDistance = 517;
  static int column(int i) { return 100 + 70 * i; }

  explicit PlantedHeads(std::int64_t tokens, std::uint64_t seed = 3) : MethodLab(3, 3, tokens, 32, seed) {
    Rng rng(seed + 100);
    std::vector<double> drift(32, 0.0);
    for (std::int64_t i = 0; i < n; ++i) {
      for (int c = 1; c < d; ++c) {
        drift[static_cast<std::size_t>(c)] = 0.98 * drift[static_cast<std::size_t>(c)] + 0.2 * rng.normal();
        k_at(0, i)[c] = static_cast<float>(drift[static_cast<std::size_t>(c)]);
        q_at(0, i)[c] = 3.5f * k_at(0, i)[c];
      }
      q_at(0, i)[0] = 10.0f;
      k_at(0, i)[0] = i < 4 ? 11.0f : 0.0f;

      for (int c = 1; c < d; ++c) q_at(1, i)[c] = i >= kDistance ? 2.2f * k_at(1, i - kDistance)[c] : 0.0f;
      q_at(1, i)[0] = 10.0f;
      k_at(1, i)[0] = 0.0f;

      const std::int64_t block = i / 64;
      for (int c = 0; c < d; ++c) k_at(2, i)[c] = 0.1f * k_at(2, i)[c] + (c == block % d ? 6.0f : 0.0f);
      for (int c = 0; c < d; ++c) q_at(2, i)[c] = i % 64 > 0 ? q_at(2, i - 1)[c] : 0.0f;
      for (int chosen = 0; i % 64 == 0 && chosen < 3; ++chosen)
        q_at(2, i)[rng.below(static_cast<std::uint64_t>(block) + 1) % 32] = 6.0f;
    }
    for (int i = 0; i < kColumns && column(i) < n; ++i) k_at(1, column(i))[0] = 6.0f;
  }
};

}  // namespace lacuna::test
