// SPDX-License-Identifier: Apache-2.0
#include "op/strided_scores_ref.h"

#include "base/half.h"
#include "op/pack_ref.h"

namespace lacuna::op {

void strided_scores_row_ref(const StridedScores::Args& a, int h, std::int64_t m) {
  const int kv_head = h / (a.hq / a.hkv);
  for (std::int64_t n = 0; n < a.causal_end(m); ++n) {
    double sum = 0;
    for (int s = 0; s < a.stride; ++s) {
      const std::int64_t row = m * a.stride + a.stride - 1 - s, key = n * a.stride + s;
      if (row >= a.n_rows || key >= a.n_keys) continue;
      const float* q = a.q + h * a.q_head + row * a.q_row;
      const std::int64_t cell = a.first_cell + key;
      const char* block = a.packed_k.block(cell / kTileKeys, kv_head);
      for (int d = 0; d < a.dk; ++d) {
        const std::int64_t at = packed_offset(Pack::Role::key, a.packed_k.format, a.packed_k.dim,
                                              static_cast<int>(cell % kTileKeys), d);
        double k = 0;
        switch (a.packed_k.format) {
          case PackFormat::pair16_bf16:
            k = bf16_to_float(reinterpret_cast<const std::uint16_t*>(block)[at]);
            break;
          case PackFormat::lane16_f16:
            k = half_to_float(reinterpret_cast<const std::uint16_t*>(block)[at]);
            break;
          case PackFormat::lane16_f32: k = reinterpret_cast<const float*>(block)[at]; break;
          case PackFormat::none: break;
        }
        sum += static_cast<double>(q[d]) * k;
      }
    }
    a.score[(static_cast<std::int64_t>(h) * a.m_rows() + m) * a.score_row + n] = static_cast<float>(sum);
  }
}

}  // namespace lacuna::op
