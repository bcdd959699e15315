// SPDX-License-Identifier: Apache-2.0
// How a model rotates the channels of queries and keys, as far as a host knows.
#pragma once

#include <cstdint>

namespace lacuna {

enum class RopeLayout : std::uint8_t {
  unknown,
  none,         // no rotation
  interleaved,  // channels 2i and 2i + 1 are a pair (Llama's GGUF files)
  half_split,   // channels i and i + D/2 are a pair (NeoX, Gemma, Qwen; Llama's original checkpoints)
  mixed,        // a matrix mixed each head's channels after the rotation (llama.cpp's quantised caches)
};

struct Rope {
  RopeLayout layout = RopeLayout::unknown;
  double base = 0;  // of the frequencies; 0 = unknown
};

constexpr const char* name_of(RopeLayout l) {
  switch (l) {
    case RopeLayout::unknown: return "unknown";
    case RopeLayout::none: return "none";
    case RopeLayout::interleaved: return "interleaved";
    case RopeLayout::mixed: return "mixed";
    case RopeLayout::half_split: return "half-split";
  }
  return "?";
}

}  // namespace lacuna
