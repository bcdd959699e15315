// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// How keys and values lie when a kernel reads them: tiles of 32 cells, each KV head's part of a tile
// side by side, so that a walk over the cache is one stream. Written once per cell (when the cell is
// written), read by every later call.
//
// Per (tile, KV head), with Dk padded to 32 and Dv padded to 32 by zeros, and cells >= n by zeros:
//   pair16_bf16   K [half of 16 keys][Dk/2][16 keys][2 channels]   bf16
//                 V [Dv/16][16 key pairs][16 channels][2 keys]     bf16
//                 the operand order of both AMX tiles and vdpbf16ps
//   lane16_f16    K [half of 16 keys][Dk][16 keys]                 f16
//   lane16_f32    V [32 keys][Dv]                                  same type
#pragma once

#include <cstddef>
#include <cstdint>

#include "pattern/tile_runs.h"

namespace lacuna {

enum class PackFormat : std::uint8_t { none, pair16_bf16, lane16_f16, lane16_f32 };

constexpr std::size_t pack_element_bytes(PackFormat f) { return f == PackFormat::lane16_f32 ? 4 : 2; }
constexpr std::int64_t padded_dim(std::int64_t d) { return (d + 31) / 32 * 32; }
constexpr std::int64_t tiles_of(std::int64_t cells) { return (cells + kTileKeys - 1) / kTileKeys; }

constexpr const char* name_of(PackFormat f) {
  switch (f) {
    case PackFormat::none: return "none";
    case PackFormat::pair16_bf16: return "pair16_bf16";
    case PackFormat::lane16_f16: return "lane16_f16";
    case PackFormat::lane16_f32: return "lane16_f32";
  }
  return "?";
}

// One packed tensor (K or V): element (tile t, head h) starts at data + (t * heads + h) * block_bytes().
struct PackedView {
  const void* data = nullptr;  // 64-byte aligned
  PackFormat format = PackFormat::none;
  std::int32_t heads = 0;
  std::int32_t dim = 0;        // unpadded
  std::int64_t cells = 0;

  std::size_t block_bytes() const {
    return static_cast<std::size_t>(padded_dim(dim)) * kTileKeys * pack_element_bytes(format);
  }
  const char* block(std::int64_t tile, int head) const {
    return static_cast<const char*>(data) +
           static_cast<std::size_t>(tile * heads + head) * block_bytes();
  }
};

}  // namespace lacuna
