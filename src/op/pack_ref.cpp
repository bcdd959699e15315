// SPDX-License-Identifier: Apache-2.0
#include "op/pack_ref.h"

#include "base/half.h"
#include "kv/element.h"

namespace lacuna::op {

std::int64_t packed_offset(Pack::Role role, PackFormat format, int dim, int c, int d) {
  const std::int64_t padded = padded_dim(dim);
  if (role == Pack::Role::key) {
    const std::int64_t half = c / 16, lane = c % 16;
    if (format == PackFormat::pair16_bf16)
      return ((half * (padded / 2) + d / 2) * 16 + lane) * 2 + d % 2;
    return (half * padded + d) * 16 + lane;
  }
  if (format == PackFormat::pair16_bf16)
    return ((d / 16 * 16 + c / 2) * 16 + d % 16) * 2 + c % 2;
  return c * padded + d;
}

void pack_ref(const Pack::Args& a) {
  PackedView view{a.packed, a.format, a.heads, a.dim, 0};
  for (std::int64_t i = 0; i < a.n; ++i) {
    const std::int64_t row = a.from ? a.from[i] : a.first + i;
    const std::int64_t cell = a.to ? a.to[i] : a.first + i;
    for (int h = 0; h < a.heads; ++h) {
      char* block = const_cast<char*>(view.block(cell / kTileKeys, h));
      for (int d = 0; d < a.dim; ++d) {
        const std::int64_t from = h * a.head + row * a.cell + d;
        const std::int64_t to =
            packed_offset(a.role, a.format, a.dim, static_cast<int>(cell % kTileKeys), d);
        const float x = element(a.raw, a.dtype, from);
        switch (a.format) {
          case PackFormat::pair16_bf16:
            reinterpret_cast<std::uint16_t*>(block)[to] = float_to_bf16(x);
            break;
          case PackFormat::lane16_f16:
            reinterpret_cast<std::uint16_t*>(block)[to] =
                a.dtype == Dtype::f16 ? static_cast<const std::uint16_t*>(a.raw)[from] : float_to_half(x);
            break;
          case PackFormat::lane16_f32: reinterpret_cast<float*>(block)[to] = x; break;
          case PackFormat::none: break;
        }
      }
    }
  }
}

}  // namespace lacuna::op
