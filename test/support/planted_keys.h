// SPDX-License-Identifier: Apache-2.0
// Adversaries of certificates: each makes q and keys of a decode case whose shape stands, so that what is left out is
// hard to bound.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/rng.h"
#include "support/decode_case.h"

namespace lacuna::test {

inline void random_keys(DecodeCase& x, Rng& rng, float q_size = 1.5f, float k_size = 1.0f) {
  x.q.resize(static_cast<std::size_t>(x.hq * x.d));
  x.keys.resize(static_cast<std::size_t>(x.hkv) * x.n * x.d);
  for (auto& y : x.q) y = q_size * static_cast<float>(rng.normal());
  for (auto& y : x.keys) y = k_size * static_cast<float>(rng.normal());
}

inline void random_case(DecodeCase& x, Rng& rng) { random_keys(x, rng); }
// The mass spread evenly: what is left out is what it looks like.
inline void flat(DecodeCase& x, Rng& rng) { random_keys(x, rng, 0.01f); }
// Boxes of one point: the bound is the truth, and any error of it shows.
inline void all_equal(DecodeCase& x, Rng& rng) {
  random_keys(x, rng);
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 1; c < x.n; ++c) std::copy_n(x.key(h, 0), x.d, x.key(h, c));
}
inline void huge(DecodeCase& x, Rng& rng) { random_keys(x, rng, 20.0f, 30.0f); }
// A few channels far larger than the rest, of either sign, as models have them.
inline void outliers(DecodeCase& x, Rng& rng) {
  random_keys(x, rng);
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 0; c < x.n; ++c) x.key(h, c)[3] += 40, x.key(h, c)[7] -= 25;
}
// In many pages one key stands in the very corner of its box that the head looks to; the others keep away from it.
inline void needles_in_corners(DecodeCase& x, Rng& rng) {
  random_keys(x, rng, 1.0f, 0.2f);
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 0; c < x.n; c += 1 + static_cast<int>(rng.below(40)))
      for (int i = 0; i < x.d; ++i)
        x.key(h, c)[i] = x.q[static_cast<std::size_t>(h * (x.hq / x.hkv) * x.d + i)] > 0 ? 2.0f : -2.0f;
}
// One key has nearly all the mass, far from the rows' own.
inline void one_needle(DecodeCase& x, Rng& rng) {
  random_keys(x, rng, 1.0f, 0.3f);
  for (int h = 0; h < x.hkv; ++h)
    for (int i = 0; i < x.d; ++i)
      x.key(h, x.n / 2)[i] = 3 * x.q[static_cast<std::size_t>(h * (x.hq / x.hkv) * x.d + i)];
}
// Numbers that f16 and bf16 round away, and scores whose largest terms cancel.
inline void cancelling(DecodeCase& x, Rng& rng) {
  random_keys(x, rng, 1.0f, 0.05f);
  for (int h = 0; h < x.hq; ++h)
    x.q[static_cast<std::size_t>(h * x.d)] = x.q[static_cast<std::size_t>(h * x.d + 1)] = 33.3f;
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 0; c < x.n; ++c) {
      const auto big = static_cast<float>(10 * rng.normal());
      x.key(h, c)[0] = big;
      x.key(h, c)[1] = -big;
    }
}
// Keys of one place lie side by side, and the row looks to two of these places: most pages are far off, and seen to be.
inline void clusters(DecodeCase& x, Rng& rng) {
  random_keys(x, rng, 1.0f, 0.02f);
  const int of_cluster = 64;
  for (int h = 0; h < x.hkv; ++h)
    for (int first = 0; first < x.n; first += of_cluster) {
      const bool looked_at = first == 0 || first + of_cluster >= x.n;
      for (int i = 0; i < x.d; ++i) {
        const float* q = x.q.data() + h * (x.hq / x.hkv) * x.d;
        const float centre = looked_at ? 3 * q[i] : -0.5f * q[i] + 0.3f * static_cast<float>(rng.normal());
        for (int c = first; c < std::min(x.n, first + of_cluster); ++c) x.key(h, c)[i] += centre;
      }
    }
  for (int h = 0; h < x.hq; ++h)  // the heads of a group look alike
    std::copy_n(x.q.data() + h / (x.hq / x.hkv) * (x.hq / x.hkv) * x.d, x.d, x.q.data() + h * x.d);
}

// Keys in 8 bits at their worst: every channel of nearly every key is rounded by almost half a step, away from where
// the head looks.
inline void between_steps(DecodeCase& x, Rng& rng) {
  random_keys(x, rng);
  constexpr float kStep = 0x1p-4f;
  for (int h = 0; h < x.hq; ++h) x.q[static_cast<std::size_t>(h * x.d)] = 0;
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 0; c < x.n; ++c) {
      const float* q = x.q.data() + h * (x.hq / x.hkv) * x.d;
      x.key(h, c)[0] = c % 2 ? 127 * kStep : -127 * kStep;  // makes the step what it is
      for (int i = 1; i < x.d; ++i) {
        const float side = (c + i) % 2 ? 4 * kStep : -4 * kStep;  // two keys of a tile make its centre 0
        x.key(h, c)[i] = c % 32 < 2 ? side : std::copysign(0.498f * kStep, q[i]);
      }
    }
}

// Queries that 8 bits would round to nothing but for one channel, and keys that lie in all the others.
inline void small_channels(DecodeCase& x, Rng& rng) {
  random_keys(x, rng);
  constexpr float kStep = 0x1p-5f;
  for (int h = 0; h < x.hq; ++h)
    for (int i = 0; i < x.d; ++i) x.q[static_cast<std::size_t>(h * x.d + i)] = i == 0 ? 127 * kStep : 0.498f * kStep;
  for (int h = 0; h < x.hkv; ++h)
    for (int c = 0; c < x.n; ++c)
      for (int i = 0; i < x.d; ++i) x.key(h, c)[i] = i == 0 ? 0.0f : c % 2 ? 8.0f : -8.0f;
}

struct Named {
  const char* name;
  void (*plant)(DecodeCase&, Rng&);
};
inline constexpr Named kPlants[] = {{"random", random_case},
                                    {"flat", flat},
                                    {"all_equal", all_equal},
                                    {"huge", huge},
                                    {"outliers", outliers},
                                    {"needles", needles_in_corners},
                                    {"one_needle", one_needle},
                                    {"cancelling", cancelling},
                                    {"clusters", clusters},
                                    {"between_steps", between_steps},
                                    {"small_channels", small_channels}};

// A shape by chance: GQA, odd lengths, types, caps, sinks, hidden cells.
inline DecodeCase draw(const Named& by, std::uint64_t seed) {
  Rng rng(seed * 977 + static_cast<std::uint64_t>(by.name[0]) * 31 + static_cast<std::uint64_t>(by.name[1]));
  DecodeCase x;
  const int groups[] = {1, 2, 3, 5};
  x.hkv = 1 + static_cast<int>(rng.below(3));
  x.hq = x.hkv * groups[rng.below(4)];
  x.n = 200 + static_cast<int>(rng.below(400));
  x.d = seed % 3 == 0 ? 64 : 32;
  const Dtype types[] = {Dtype::f16, Dtype::f16, Dtype::bf16, Dtype::f32, Dtype::q8_0, Dtype::q4_0};
  x.type = types[rng.below(6)];
  x.softcap = seed % 4 == 1 ? 5.0f : seed % 4 == 2 ? 50.0f : 0.0f;
  if (seed % 5 == 1)
    for (int h = 0; h < x.hq; ++h) x.sinks.push_back(static_cast<float>(3 * rng.normal()));
  if (seed % 3 == 1) {  // another sequence's cells in between, and some after the row's own
    x.mask.assign(static_cast<std::size_t>(x.n), 0);
    for (int c = 0; c + 40 < x.n; ++c) x.mask[static_cast<std::size_t>(c)] = rng.below(4) == 0 ? 0xfc00 : 0;
    for (int c = x.n - 7; c < x.n; ++c) x.mask[static_cast<std::size_t>(c)] = 0xfc00;
  }
  by.plant(x, rng);
  x.seal();
  return x;
}

}  // namespace lacuna::test
