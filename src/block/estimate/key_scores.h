// SPDX-License-Identifier: Apache-2.0
// Estimate: plain scores q.k of a few rows with all keys, some KV heads at a time, so that the scores
// of a long prompt stay within a bounded memory. What the estimators on last rows and on pooled
// queries have in common.
#pragma once

#include <algorithm>
#include <cstdint>

#include "block/slots.h"
#include "op/attention_view.h"
#include "op/context.h"
#include "op/strided_scores.h"

namespace lacuna::block {

struct FewRows {
  const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
  std::int64_t q_head = 0, q_row = 0;
  std::int32_t rows = 0;
  std::int64_t first_key = -1;  // key number of row 0's own key: row i has scores for keys 0 .. first_key + i;
                                // -1: every row has scores for all keys
};

// Calls each(h, scores, score_row) for every query head, on any worker: the scores of row i begin at
// scores + i * score_row, unscaled. Scores lie in kScoreSlot.
template <class Each>
void for_key_scores(const AttentionView& x, const FewRows& few, Context& context, const Each& each) {
  constexpr std::int64_t kScoreFloats = 8 << 20;
  const std::int32_t group = x.grid.heads / x.hkv;
  const OrderedKeys keys = x.keys->ordered();
  op::StridedScores::Args s;
  s.stride = 1;
  s.dk = x.dk;
  s.n_rows = few.rows;
  s.n_keys = x.grid.n_keys;
  s.first_cell = keys.first_cell;
  s.q_head = few.q_head;
  s.q_row = few.q_row;
  s.packed_k = keys.packed;
  s.score_row = (s.n_keys + 15) / 16 * 16;
  s.first_key_of_row0 = few.first_key;
  const auto at_once = static_cast<std::int32_t>(
      std::clamp<std::int64_t>(kScoreFloats / (std::int64_t{group} * few.rows * s.score_row), 1, x.hkv));
  for (std::int32_t kv = 0; kv < x.hkv; kv += at_once) {
    s.hkv = std::min(at_once, x.hkv - kv);
    s.hq = s.hkv * group;
    s.q = few.q + std::int64_t{kv} * group * few.q_head;
    s.packed_k.data = static_cast<const char*>(keys.packed.data) + static_cast<std::size_t>(kv) * keys.packed.block_bytes();
    s.score = context.scratch_as<float>(kScoreSlot, static_cast<std::size_t>(s.hq * s.n_rows * s.score_row));
    context.run<op::StridedScores>(s);
    context.threads().each(s.hq, [&](int h, int) {
      each(kv * group + h, s.score + std::int64_t{h} * s.n_rows * s.score_row, s.score_row);
    });
  }
}

}  // namespace lacuna::block
