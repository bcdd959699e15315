// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The tile operations a kernel needs, as a policy: the instructions, or the same arithmetic in plain
// C++, so that every kernel written with them can be tested on a machine that has no AMX.
//
// Eight tiles of 16 rows x 64 bytes. As operands of the product:
//   A [16 rows][32 values] bf16,  B [16 pairs of values][16 columns][2] bf16,  C [16][16] f32
//   A [16 rows][64 values] s8,    B [16 fours of values][16 columns][4] s8,    C [16][16] s32
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lacuna::kernel::amx {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 1024;
constexpr int kTileDepth = 32;  // values a product sums over

// Instructions as text: an -mamx flag would let the compiler treat the tile configuration as a dead
// store (g++ 12). The compiler knows nothing of tile registers, so the order of these volatile
// statements is all that matters; "memory" keeps them in order with the scores and weights.
//
// The thread's own configuration is put back afterwards: a host may set its own once per thread and
// rely on it (llama.cpp's matrix products do, and die of SIGILL without it).
struct HardwareTiles {
  struct alignas(64) Config {
    std::uint8_t palette = 0, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  };
  [[gnu::always_inline]] HardwareTiles() {
    asm volatile("sttilecfg %0" : "=m"(before_)::"memory");
    Config config;
    config.palette = 1;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = kTileRows;
    }
    asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  // Palette 0 is what a thread without tiles has: loading it releases them.
  [[gnu::always_inline]] ~HardwareTiles() { asm volatile("ldtilecfg %0" ::"m"(before_) : "memory"); }
  HardwareTiles(const HardwareTiles&) = delete;
  HardwareTiles& operator=(const HardwareTiles&) = delete;

  // Row r of tile T lies at from + r * stride bytes.
  template <int T>
  [[gnu::always_inline]] void load(const void* from, long stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  // The same for what will not be read again soon: what the first cache holds may stay there.
  template <int T>
  [[gnu::always_inline]] void stream(const void* from, long stride) {
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  [[gnu::always_inline]] void store(void* to, long stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(T) : "memory");
  }
  template <int T>
  [[gnu::always_inline]] void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] void multiply_add_bytes() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }

 private:
  Config before_;
};

// What the manual says the instructions do: of each pair of values the two products go into two
// running sums, which are added to each other and then to C; subnormal numbers count as zeros on the
// way in and out; MXCSR has no say. (Always inlined, as above: tests use it too, without AVX-512.)
class EmulatedTiles {
 public:
  template <int T>
  [[gnu::always_inline]] void load(const void* from, long stride) {
    for (int r = 0; r < kTileRows; ++r)
      __builtin_memcpy(tile_[T] + r * 64, static_cast<const char*>(from) + r * stride, 64);
  }
  template <int T>
  [[gnu::always_inline]] void stream(const void* from, long stride) {
    load<T>(from, stride);
  }
  template <int T>
  [[gnu::always_inline]] void store(void* to, long stride) {
    for (int r = 0; r < kTileRows; ++r) __builtin_memcpy(static_cast<char*>(to) + r * stride, tile_[T] + r * 64, 64);
  }
  template <int T>
  [[gnu::always_inline]] void zero() {
    __builtin_memset(tile_[T], 0, kTileBytes);
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] void multiply_add() {
    product(tile_[C], tile_[A], tile_[B]);
  }
  template <int C, int A, int B>
  [[gnu::always_inline]] void multiply_add_bytes() {
    for (int m = 0; m < kTileRows; ++m) {
      std::int32_t sum[16];
      __builtin_memcpy(sum, tile_[C] + m * 64, 64);
      for (int k = 0; k < 64; ++k) {
        const int left = static_cast<std::int8_t>(tile_[A][m * 64 + k]);
        for (int n = 0; n < 16; ++n) sum[n] += left * static_cast<std::int8_t>(tile_[B][k / 4 * 64 + n * 4 + k % 4]);
      }
      __builtin_memcpy(tile_[C] + m * 64, sum, 64);
    }
  }

 private:
  [[gnu::always_inline]] static float normal_or_zero(float x) {
    return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x;
  }
  [[gnu::always_inline]] static float bf16_at_top(std::uint32_t bits) {
    return normal_or_zero(__builtin_bit_cast(float, bits));
  }
  [[gnu::always_inline]] static void product(unsigned char* c, const unsigned char* a, const unsigned char* b) {
    for (int m = 0; m < kTileRows; ++m) {
      float even[16] = {}, odd[16] = {}, sum[16];
      for (int k = 0; k < 16; ++k) {
        std::uint32_t left, right[16];
        __builtin_memcpy(&left, a + m * 64 + k * 4, 4);
        __builtin_memcpy(right, b + k * 64, 64);
        const float left_even = bf16_at_top(left << 16), left_odd = bf16_at_top(left & 0xffff0000u);
        for (int n = 0; n < 16; ++n) {
          even[n] = normal_or_zero(__builtin_fmaf(left_even, bf16_at_top(right[n] << 16), even[n]));
          odd[n] = normal_or_zero(__builtin_fmaf(left_odd, bf16_at_top(right[n] & 0xffff0000u), odd[n]));
        }
      }
      __builtin_memcpy(sum, c + m * 64, 64);
      for (int n = 0; n < 16; ++n) sum[n] = normal_or_zero(normal_or_zero(sum[n]) + normal_or_zero(even[n] + odd[n]));
      __builtin_memcpy(c + m * 64, sum, 64);
    }
  }

  alignas(64) unsigned char tile_[8][kTileBytes];
};

}  // namespace lacuna::kernel::amx
