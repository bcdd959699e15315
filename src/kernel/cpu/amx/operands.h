// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// What the AMX kernels share. Operands of tile products: rows of queries as A tiles; the halves of packed key
// blocks, which are B tiles as they lie (kv/packed.h: [16 channel pairs][16 keys][2]).
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernel/cpu/amx/tiles.h"
#include "kv/packed.h"

namespace lacuna::kernel::amx {

template <class A, class B>
[[gnu::always_inline]] static constexpr auto ceil_div(A a, B b) { return (a + b - 1) / b; }
static inline __mmask16 first_lanes(std::int64_t n) {
  return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1);
}

// The 16 keys of half tile `half` (cells 16 half ...): one B tile for every 32 channels.
static inline const char* half_tile(const PackedView& k, int channel_tiles, std::int64_t half, int kv_head) {
  return static_cast<const char*>(k.data) + ((half / 2 * k.heads + kv_head) * 2 + half % 2) * channel_tiles * kTileBytes;
}

// Row r of A tiles, one for every 32 channels: `n` channels of q as bf16, zeros behind them.
static inline void put_row(const float* q, int n, int channel_tiles, int r, char* to) {
  for (int d = 0; d < channel_tiles; ++d) {
    const int left = n - d * kTileDepth;
    const __m512 low = _mm512_maskz_loadu_ps(first_lanes(left), q + d * kTileDepth);
    const __m512 high = _mm512_maskz_loadu_ps(first_lanes(left - 16), q + d * kTileDepth + 16);
    _mm512_store_si512(to + d * kTileBytes + r * 64, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
}

// Asks for `n` tiles that will be loaded in a moment: tile loads wait for memory line by line.
[[gnu::always_inline]] static inline void fetch_tiles(const char* from, int n) {
  for (int line = 0; line < n * kTileBytes; line += 64) _mm_prefetch(from + line, _MM_HINT_T0);
}

// Tiles 0..3 += the products of two A tiles' rows (`upper`, `lower`) with two B tiles' columns, over operands
// [from, depth) of each, that lie one behind the other.
template <class Tiles>
[[gnu::always_inline]] static inline void add_2x2(Tiles& tiles, const char* upper, const char* lower, const char* left,
                                                  const char* right, int from, int depth) {
  for (long at = static_cast<long>(from) * kTileBytes; at < static_cast<long>(depth) * kTileBytes; at += kTileBytes) {
    tiles.template load<4>(upper + at, 64);
    tiles.template load<6>(left + at, 64);
    tiles.template multiply_add<0, 4, 6>();
    tiles.template load<7>(right + at, 64);
    tiles.template multiply_add<1, 4, 7>();
    tiles.template load<5>(lower + at, 64);
    tiles.template multiply_add<2, 5, 6>();
    tiles.template multiply_add<3, 5, 7>();
  }
}
// Tiles 0..3 = all of them.
template <class Tiles>
[[gnu::always_inline]] static inline void product_2x2(Tiles& tiles, const char* upper, const char* lower, const char* left,
                                                      const char* right, int depth) {
  tiles.template zero<0>();
  tiles.template zero<1>();
  tiles.template zero<2>();
  tiles.template zero<3>();
  add_2x2(tiles, upper, lower, left, right, 0, depth);
}
// The same, with what is still in the tiles stored on the way, each tile just before it is needed: a store waits
// for its tile's products, and these here go on meanwhile.
template <class Tiles>
[[gnu::always_inline]] static inline void product_2x2_behind(Tiles& tiles, float* pending, std::int64_t row, const char* upper,
                                                             const char* lower, const char* left, const char* right, int depth) {
  tiles.template load<4>(upper, 64);
  tiles.template load<6>(left, 64);
  tiles.template store<0>(pending, row * 4);
  tiles.template zero<0>();
  tiles.template multiply_add<0, 4, 6>();
  tiles.template load<7>(right, 64);
  tiles.template store<1>(pending + 16, row * 4);
  tiles.template zero<1>();
  tiles.template multiply_add<1, 4, 7>();
  tiles.template load<5>(lower, 64);
  tiles.template store<2>(pending + kTileRows * row, row * 4);
  tiles.template zero<2>();
  tiles.template multiply_add<2, 5, 6>();
  tiles.template store<3>(pending + kTileRows * row + 16, row * 4);
  tiles.template zero<3>();
  tiles.template multiply_add<3, 5, 7>();
  add_2x2(tiles, upper, lower, left, right, 1, depth);
}
template <class Tiles>
[[gnu::always_inline]] static inline void store_2x2(Tiles& tiles, float* to, std::int64_t row) {
  tiles.template store<0>(to, row * 4);
  tiles.template store<1>(to + 16, row * 4);
  tiles.template store<2>(to + kTileRows * row, row * 4);
  tiles.template store<3>(to + kTileRows * row + 16, row * 4);
}

}  // namespace lacuna::kernel::amx
