// SPDX-License-Identifier: Apache-2.0
// op pack on AVX-512. Sixteen cells that fill half a tile go through registers (keys by a 16 x 16
// transpose of 32-bit words); other cells, decode's single ones, are scattered.
//
// Rounding is done in integers, not by vcvtneps2bf16: same bits as the reference, subnormals too,
// and any AVX-512 machine will do.
#include <immintrin.h>
#include <stdint.h>

#include "kernel/kernel.h"
#include "op/pack.h"

namespace lacuna::kernel::avx512 {
namespace {

using Args = op::Pack::Args;
using Role = op::Pack::Role;

__mmask16 mask16(int64_t left) {
  return left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
}

// Channels [d, d + 16) of a raw row as f32; zeros past the row's end.
template <Dtype T>
__m512 load(const char* row, int64_t d, int64_t dim) {
  const __mmask16 in = mask16(dim - d);
  if constexpr (T == Dtype::f32) return _mm512_maskz_loadu_ps(in, row + d * 4);
  const __m256i x = _mm256_maskz_loadu_epi16(in, row + d * 2);
  if constexpr (T == Dtype::f16) return _mm512_cvtph_ps(x);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}

__m256i to_bf16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i near = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(near, nan, quiet), 16));
}

// The same channels as the format's 16-bit type.
template <Dtype T, PackFormat F>
__m256i load_half(const char* row, int64_t d, int64_t dim) {
  constexpr Dtype kSame = F == PackFormat::pair16_bf16 ? Dtype::bf16 : Dtype::f16;
  if constexpr (T == kSame) return _mm256_maskz_loadu_epi16(mask16(dim - d), row + d * 2);
  const __m512 x = load<T>(row, d, dim);
  if constexpr (F == PackFormat::pair16_bf16) return to_bf16(x);
  return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void transpose16(__m512i* x) {
  __m512i y[16];
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      x[i + 2 * j] = _mm512_unpacklo_epi64(y[i + j], y[i + j + 2]);
      x[i + 2 * j + 1] = _mm512_unpackhi_epi64(y[i + j], y[i + j + 2]);
    }
  // x[4 g + c]: column c of every 128-bit lane, rows 4 g .. 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512i a = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88), b = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
    const __m512i d = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd), e = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
    y[c] = _mm512_shuffle_i32x4(a, b, 0x88);
    y[8 + c] = _mm512_shuffle_i32x4(a, b, 0xdd);
    y[4 + c] = _mm512_shuffle_i32x4(d, e, 0x88);
    y[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
  }
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

// Sixteen keys into their half of a tile.
template <Dtype T, PackFormat F>
void keys16(const char* const* row, int64_t dim, char* half) {
  const int64_t end = padded_dim(dim);
  if constexpr (F == PackFormat::lane16_f32) {
    for (int64_t d = 0; d < end; d += 16) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) x[i] = _mm512_castps_si512(load<T>(row[i], d, dim));
      transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(half + (d + i) * 64, x[i]);
    }
  } else {
    // Even channels of all keys first, then the odd ones.
    const __m512i apart = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24, 22,
                                           20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    for (int64_t d = 0; d < end; d += 32) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        const __m256i low = load_half<T, F>(row[i], d, dim), high = load_half<T, F>(row[i], d + 16, dim);
        x[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      }
      transpose16(x);
      for (int i = 0; i < 16; ++i) {
        if constexpr (F == PackFormat::lane16_f16) x[i] = _mm512_permutexvar_epi16(apart, x[i]);
        _mm512_store_si512(half + (d / 2 + i) * 64, x[i]);
      }
    }
  }
}

// Sixteen values into a tile; `first` is 0 or 16.
template <Dtype T, PackFormat F>
void values16(const char* const* row, int64_t dim, int first, char* block) {
  const int64_t end = padded_dim(dim);
  for (int i = 0; i < 16; i += 2)
    for (int64_t d = 0; d < end; d += 16) {
      if constexpr (F == PackFormat::pair16_bf16) {
        const __m512i a = _mm512_cvtepu16_epi32(load_half<T, F>(row[i], d, dim));
        const __m512i b = _mm512_cvtepu16_epi32(load_half<T, F>(row[i + 1], d, dim));
        _mm512_store_si512(block + (d + (first + i) / 2) * 64, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
      } else {
        for (int j = i; j < i + 2; ++j) {
          if constexpr (F == PackFormat::lane16_f16)
            _mm256_store_si256(reinterpret_cast<__m256i*>(block + ((first + j) * end + d) * 2), load_half<T, F>(row[j], d, dim));
          else
            _mm512_store_ps(block + ((first + j) * end + d) * 4, load<T>(row[j], d, dim));
        }
      }
    }
}

// One cell of one head.
template <Dtype T, PackFormat F>
void one_cell(Role role, const char* row, int64_t dim, int cell, char* block) {
  const int64_t end = padded_dim(dim);
  const int64_t half = cell / 16, lane = cell % 16;
  // Channels (or pairs of them) of a key lie 16 words apart.
  const __m512i step = _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
  for (int64_t d = 0; d < end; d += 16) {
    if constexpr (F == PackFormat::lane16_f32) {
      const __m512 x = load<T>(row, d, dim);
      if (role == Role::value) _mm512_store_ps(block + (cell * end + d) * 4, x);
      else _mm512_i32scatter_ps(block + ((half * end + d) * 16 + lane) * 4, step, x, 4);
    } else {
      const __m256i x = load_half<T, F>(row, d, dim);
      if (role == Role::value && F == PackFormat::lane16_f16) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(block + (cell * end + d) * 2), x);
      } else if (role == Role::value) {
        const __m512i wide = _mm512_cvtepu16_epi32(x);
        const bool second = cell % 2;
        _mm512_mask_storeu_epi16(block + (d + cell / 2) * 64, second ? 0xaaaaaaaau : 0x55555555u,
                                 second ? _mm512_slli_epi32(wide, 16) : wide);
      } else if (F == PackFormat::pair16_bf16) {
        _mm256_i32scatter_epi32(block + (half * end / 2 + d / 2) * 64 + lane * 4, _mm512_castsi512_si256(step), x, 4);
      } else {
        alignas(32) uint16_t each[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(each), x);
        uint16_t* to = reinterpret_cast<uint16_t*>(block) + (half * end + d) * 16 + lane;
        for (int i = 0; i < 16; ++i) to[i * 16] = each[i];
      }
    }
  }
}

// How many jobs from i on fill a half tile: 16 or 0.
bool fills_half(const Args& a, int64_t i) {
  if (i + 16 > a.n) return false;
  if (!a.to) return (a.first + i) % 16 == 0;
  if (a.to[i] % 16) return false;
  for (int j = 1; j < 16; ++j)
    if (a.to[i + j] != a.to[i] + j) return false;
  return true;
}

template <Dtype T, PackFormat F>
void pack_all(const Args& a) {
  const int64_t bytes = T == Dtype::f32 ? 4 : 2;
  const int64_t block_bytes = padded_dim(a.dim) * kTileKeys * (F == PackFormat::lane16_f32 ? 4 : 2);
  const int64_t half_bytes = block_bytes / 2;
  const auto row = [&](int64_t i, int h) {
    const int64_t cell = a.from ? a.from[i] : a.first + i;
    return static_cast<const char*>(a.raw) + (h * a.head + cell * a.cell) * bytes;
  };
  for (int64_t i = 0; i < a.n;) {
    const bool half = fills_half(a, i);
    const int64_t cell = a.to ? a.to[i] : a.first + i;
    const int in_tile = static_cast<int>(cell % kTileKeys);
    char* tile = static_cast<char*>(a.packed) + cell / kTileKeys * a.heads * block_bytes;
    for (int h = 0; h < a.heads; ++h) {
      char* block = tile + h * block_bytes;
      if (!half) {
        one_cell<T, F>(a.role, row(i, h), a.dim, in_tile, block);
        continue;
      }
      const char* rows[16];
      for (int j = 0; j < 16; ++j) rows[j] = row(i + j, h);
      if (a.role == Role::key) keys16<T, F>(rows, a.dim, block + in_tile / 16 * half_bytes);
      else values16<T, F>(rows, a.dim, in_tile, block);
    }
    i += half ? 16 : 1;
  }
}

template <PackFormat F>
void pack_from(const Args& a) {
  switch (a.dtype) {
    case Dtype::f32: return pack_all<Dtype::f32, F>(a);
    case Dtype::f16: return pack_all<Dtype::f16, F>(a);
    case Dtype::bf16: return pack_all<Dtype::bf16, F>(a);
  }
}

int tasks(const Args&, int, int) { return 1; }  // callers slice the cells

void run(const Args& a, int, int, int, void*, void*) {
  switch (a.format) {
    case PackFormat::none: return;
    case PackFormat::pair16_bf16: return pack_from<PackFormat::pair16_bf16>(a);
    case PackFormat::lane16_f16: return pack_from<PackFormat::lane16_f16>(a);
    case PackFormat::lane16_f32: return pack_from<PackFormat::lane16_f32>(a);
  }
}

}  // namespace

extern const Kernel<op::Pack> pack;
const Kernel<op::Pack> pack{
    .name = "cpu.avx512",
    .needs = kAvx512,
    .tasks = tasks,
    .run = run,
};

}  // namespace lacuna::kernel::avx512
