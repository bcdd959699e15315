// SPDX-License-Identifier: Apache-2.0
// op pack on AVX2: the lane16 layouts. Eight cells that fill a quarter of a tile go through an 8 x 8
// transpose of f32 (keys); single cells are scattered. Values are converted row by row.
#include "kernel/cpu/avx2/quant.h"
#include "kernel/cpu/avx2/vec.h"
#include "kernel/cpu/lane16/raw_type.inc"

#include "kernel/kernel.h"
#include "op/pack.h"

namespace lacuna::kernel::avx2 {
namespace {

using Args = op::Pack::Args;
using Role = op::Pack::Role;

// Channels [d, d + 8) of a raw row as f32, zeros past the row's end; any dim.
template <Dtype T>
F channels(const char* row, int64_t d, int64_t dim) {
  if constexpr (kQuantised<T>) return quantised<T>(row, d);
  if constexpr (T == Dtype::f32) return load_some(reinterpret_cast<const float*>(row) + d, dim - d);
  if constexpr (T == Dtype::f16) return load_some(reinterpret_cast<const uint16_t*>(row) + d, dim - d);
  return load_bf16_some(reinterpret_cast<const uint16_t*>(row) + d, dim - d);
}

void put(float* to, F x) { store(to, x); }
void put(uint16_t* to, F x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

int64_t source(const Args& a, int64_t i) { return a.from ? a.from[i] : a.first + i; }
int64_t target(const Args& a, int64_t i) { return a.to ? a.to[i] : a.first + i; }

// Jobs i .. i + 7 fill one eighth-aligned row of a tile.
bool eight_together(const Args& a, int64_t i) {
  if (a.n - i < 8 || target(a, i) % 8) return false;
  for (int j = 1; j < 8; ++j)
    if (target(a, i + j) != target(a, i) + j) return false;
  return true;
}

template <Dtype T, class S>
void pack(const Args& a) {
  const int64_t dim = a.dim, wide = (dim + 31) / 32 * 32;
  for (int64_t i = 0; i < a.n;) {
    const bool eight = a.role == Role::key && eight_together(a, i);
    const int64_t cell = target(a, i);
    for (int h = 0; h < a.heads; ++h) {
      S* block = static_cast<S*>(a.packed) + (cell / kTileKeys * a.heads + h) * wide * kTileKeys;
      const char* row = static_cast<const char*>(a.raw) + raw_bytes(T, h * a.head + source(a, i) * a.cell);
      const int64_t in_tile = cell % kTileKeys;
      if (a.role == Role::value) {
        // Padding channels are zeros already; writing zeros there again does no harm.
        for (int64_t d = 0; d < dim; d += 8) put(block + in_tile * wide + d, channels<T>(row, d, dim));
        continue;
      }
      S* to = block + in_tile / 16 * wide * 16 + in_tile % 16;
      for (int64_t d = 0; d < dim; d += 8) {
        const int n = dim - d < 8 ? static_cast<int>(dim - d) : 8;
        if (eight) {
          F x[8];
          for (int j = 0; j < 8; ++j)
            x[j] = channels<T>(static_cast<const char*>(a.raw) + raw_bytes(T, h * a.head + source(a, i + j) * a.cell), d, dim);
          transpose(x);
          for (int c = 0; c < n; ++c) put(to + (d + c) * 16, x[c]);
        } else {
          S one[8];
          put(one, channels<T>(row, d, dim));
          for (int c = 0; c < n; ++c) to[(d + c) * 16] = one[c];
        }
      }
    }
    i += eight ? 8 : 1;
  }
}

template <Dtype T>
void pack_as(const Args& a) {
  if (a.format == PackFormat::lane16_f32) pack<T, float>(a);
  else pack<T, uint16_t>(a);
}

const char* why_not(const Args& a, int) {
  return a.format == PackFormat::lane16_f16 || a.format == PackFormat::lane16_f32
             ? nullptr
             : "packs lane16_f16 and lane16_f32 only";
}

void run(const Args& a, int, int, int, void*, void*) {
  with_type(a.dtype, [&]<Dtype T>() { pack_as<T>(a); });
}

}  // namespace

extern const Kernel<op::Pack> pack_lane16;
const Kernel<op::Pack> pack_lane16{
    .name = "cpu.avx2",
    .needs = kAvx2,
    .why_not = why_not,
    .tasks = [](const Args&, int, int) { return 1; },
    .run = run,
};

}  // namespace lacuna::kernel::avx2
