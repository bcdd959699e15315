// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/antidiagonal.h"

#include <algorithm>

#include "block/slots.h"
#include "op/segment_mass.h"
#include "op/strided_scores.h"

namespace lacuna::block {
namespace {

constexpr std::int64_t kScoreFloats = 2 << 20;  // 8 MB: scores are read again before they leave the caches

}  // namespace

const float* antidiagonal_mass(const Antidiagonal& a, Context& context) {
  const std::int64_t key_blocks = a.key_blocks();
  const std::int32_t row_blocks = a.row_blocks();
  const auto cells = static_cast<std::size_t>(a.grid.heads * row_blocks * key_blocks);
  float* mass = context.scratch_as<float>(kMassSlot, cells);
  std::fill(mass, mass + cells, 0.0f);  // of row blocks without a strided row
  // Where the strided rows of each row block begin, and how many squares each of them sees.
  auto* group_ptr = context.scratch_as<std::int32_t>(kCountSlot, static_cast<std::size_t>(row_blocks + 1));
  auto* ends = context.scratch_as<std::int32_t>(kWorkSlot, static_cast<std::size_t>(a.strided_rows()));

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
  s.score_row = s.good_row();
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

    for (std::int32_t u = begin; u <= end; ++u)
      group_ptr[u - begin] = static_cast<std::int32_t>(a.first_strided_row(u) - first);
    for (std::int64_t m = 0; m < s.m_rows(); ++m) ends[m] = static_cast<std::int32_t>(s.causal_end(m));
    context.run<op::SegmentMass>({.heads = s.hq,
                                  .groups = end - begin,
                                  .columns = static_cast<std::int32_t>(s.n_cols()),
                                  .group_ptr = group_ptr,
                                  .end = ends,
                                  .score = s.score,
                                  .score_head = s.m_rows() * s.score_row,
                                  .score_row = s.score_row,
                                  .scale = factor,
                                  .segment = a.block / a.stride,
                                  .mass = mass + begin * key_blocks,
                                  .mass_head = row_blocks * key_blocks});
  }
  return mass;
}

}  // namespace lacuna::block
