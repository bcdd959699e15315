// SPDX-License-Identifier: Apache-2.0
// op pack on AVX-512. Sixteen cells that fill half a tile go through registers (keys by a 16 x 16
// transpose of 32-bit words); other cells, decode's single ones, are scattered.
#include "kernel/cpu/avx512/rows16.inc"
#include "kernel/kernel.h"
#include "op/pack.h"

namespace lacuna::kernel::avx512 {
namespace {

using Args = op::Pack::Args;
using Role = op::Pack::Role;

// One cell of one head.
template <Dtype T, PackFormat F>
void one_cell(Role role, const char* row, int64_t dim, int cell, char* block) {
  const int64_t end = padded_dim(dim);
  const int64_t half = cell / 16, lane = cell % 16;
  // Channels (or pairs of them) of a key lie 16 words apart.
  const __m512i step = _mm512_set_epi32(240, 224, 208, 192, 176, 160, 144, 128, 112, 96, 80, 64, 48, 32, 16, 0);
  for (int64_t d = 0; d < end; d += 16) {
    if constexpr (F == PackFormat::lane16_f32) {
      const __m512 x = channels<T>(row, d, dim);
      if (role == Role::value) _mm512_store_ps(block + (cell * end + d) * 4, x);
      else _mm512_i32scatter_ps(block + ((half * end + d) * 16 + lane) * 4, step, x, 4);
    } else {
      const __m256i x = channels_as<T, F>(row, d, dim);
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
  const int64_t block_bytes = padded_dim(a.dim) * kTileKeys * (F == PackFormat::lane16_f32 ? 4 : 2);
  const int64_t half_bytes = block_bytes / 2;
  const auto row = [&](int64_t i, int h) {
    const int64_t cell = a.from ? a.from[i] : a.first + i;
    return static_cast<const char*>(a.raw) + raw_bytes(T, h * a.head + cell * a.cell);
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
  with_type(a.dtype, [&]<Dtype T>() { pack_all<T, F>(a); });
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
