// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/antidiagonal.h"

#include <algorithm>

#include "block/row_softmax.h"
#include "block/slots.h"
#include "op/strided_scores.h"

namespace lacuna::block {
namespace {

constexpr std::int64_t kScoreFloats = 8 << 20;

// Adds one strided row's softmax to its block's masses. `part` holds key_blocks() floats.
void add_row(float* score, std::int64_t n, std::int64_t per_block, float factor, float* part, float* mass) {
  const float top = max_of(score, n);
  float total = 0;
  std::int64_t blocks = 0;
  for (std::int64_t at = 0; at < n; at += per_block, ++blocks) {
    part[blocks] = sum_exp(score + at, std::min(per_block, n - at), top, factor);
    total += part[blocks];
  }
  const float inverse = 1.0f / total;
  for (std::int64_t b = 0; b < blocks; ++b) mass[b] += part[b] * inverse;
}

}  // namespace

const float* antidiagonal_mass(const Antidiagonal& a, Context& context) {
  const std::int64_t key_blocks = a.key_blocks();
  const std::int32_t row_blocks = a.row_blocks();
  const auto cells = static_cast<std::size_t>(a.grid.heads * row_blocks * key_blocks);
  float* mass = context.scratch_as<float>(kMassSlot, cells);
  std::fill(mass, mass + cells, 0.0f);
  float* parts = context.scratch_as<float>(kWorkSlot, static_cast<std::size_t>(context.threads().workers() * key_blocks));

  op::StridedScores::Args s;
  s.stride = a.stride;
  s.hq = a.grid.heads;
  s.hkv = a.hkv;
  s.dk = a.dk;
  s.n_keys = a.grid.n_keys;
  s.first_cell = a.first_cell;
  s.q_head = a.q_head;
  s.q_row = a.q_row;
  s.packed_k = a.packed_k;
  s.score_row = (s.n_cols() + 15) / 16 * 16;
  const float factor = a.scale / (static_cast<float>(a.stride) * a.norm);

  // As many row blocks at a time as the scores of all heads have room for.
  for (std::int32_t begin = 0, end; begin < row_blocks; begin = end) {
    const std::int64_t first = a.first_strided_row(begin);
    for (end = begin + 1; end < row_blocks; ++end)
      if ((a.first_strided_row(end + 1) - first) * s.hq * s.score_row > kScoreFloats) break;
    const std::int64_t first_row = a.skipped() + first * a.stride;
    const std::int64_t last_row = a.skipped() + a.first_strided_row(end) * a.stride;
    s.n_rows = static_cast<std::int32_t>(std::min<std::int64_t>(last_row, a.grid.n_rows) - first_row);
    if (s.n_rows <= 0) continue;
    s.q = a.q + first_row * a.q_row;
    s.first_key_of_row0 = a.grid.first_key + first_row;
    s.score = context.scratch_as<float>(kScoreSlot, static_cast<std::size_t>(s.hq * s.m_rows() * s.score_row));
    context.run<op::StridedScores>(s);

    context.threads().each(s.hq * (end - begin), [&](int task, int worker) {
      const std::int64_t h = task / (end - begin);
      const std::int32_t u = begin + task % (end - begin);
      for (std::int64_t m = a.first_strided_row(u) - first; m < a.first_strided_row(u + 1) - first; ++m)
        add_row(s.score + (h * s.m_rows() + m) * s.score_row, s.causal_end(m), a.block / a.stride, factor,
                parts + worker * key_blocks, mass + (h * row_blocks + u) * key_blocks);
    });
  }
  return mass;
}

}  // namespace lacuna::block
