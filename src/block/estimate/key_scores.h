// SPDX-License-Identifier: Apache-2.0
// Estimate: plain scores q.k of a few rows with all keys, some KV heads at a time, so that the scores
// of a long prompt stay within a bounded memory. What the estimators on last rows and on pooled
// queries have in common.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

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

// Query heads that an estimate is made for, a byte each; empty = all of them.
using Wanted = std::span<const std::uint8_t>;
inline bool is_wanted(Wanted wanted, std::int32_t head) { return wanted.empty() || wanted[static_cast<std::size_t>(head)] != 0; }

// Calls each(h, scores, score_row) for every wanted query head, on any worker: the scores of row i begin at
// scores + i * score_row, unscaled. Scores lie in kScoreSlot.
template <class Each>
void for_key_scores(const AttentionView& x, const FewRows& few, Context& context, const Each& each, Wanted wanted = {}) {
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
  for (std::int32_t first = 0; first < x.grid.heads;) {
    std::int32_t end = first;  // behind the wanted heads that begin here
    while (end < x.grid.heads && is_wanted(wanted, end)) ++end;
    if (end == first) {
      ++first;
      continue;
    }
    // Whole groups, some at once, or a part of one.
    const std::int32_t kv = first / group, groups = first % group == 0 ? (end - first) / group : 0;
    s.hkv = std::clamp(groups, 1, at_once);
    s.hq = groups > 0 ? s.hkv * group : std::min(end, (kv + 1) * group) - first;
    s.q = few.q + std::int64_t{first} * few.q_head;
    s.packed_k.data = static_cast<const char*>(keys.packed.data) + static_cast<std::size_t>(kv) * keys.packed.block_bytes();
    s.score = context.scratch_as<float>(kScoreSlot, static_cast<std::size_t>(s.hq * s.n_rows * s.score_row));
    context.run<op::StridedScores>(s);
    context.threads().each(s.hq, [&](int h, int) {
      each(first + h, s.score + std::int64_t{h} * s.n_rows * s.score_row, s.score_row);
    });
    first += s.hq;
  }
}

}  // namespace lacuna::block
