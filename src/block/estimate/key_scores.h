// SPDX-License-Identifier: Apache-2.0
// Estimate: plain scores q.k of a few rows with all keys, some KV heads at a time, so that the scores
// of a long prompt stay within a bounded memory.
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
  std::int64_t from = 0;        // scores of this key and those behind it alone: a multiple of 16
};

// Query heads that an estimate is made for, a byte each; empty = all of them.
using Wanted = std::span<const std::uint8_t>;
inline bool is_wanted(Wanted wanted, std::int32_t head) { return wanted.empty() || wanted[static_cast<std::size_t>(head)] != 0; }

// Calls each(first query head, query heads, KV head, KV heads) for runs of wanted heads, which are whole
// groups, at most `at_once` of them, or a part of one group.
template <class Each>
void for_wanted_groups(const AttentionView& x, Wanted wanted, std::int64_t at_once, const Each& each) {
  const std::int32_t group = x.grid.heads / x.hkv, most = static_cast<std::int32_t>(std::clamp<std::int64_t>(at_once, 1, x.hkv));
  for (std::int32_t first = 0; first < x.grid.heads;) {
    std::int32_t end = first;  // behind the wanted heads that begin here
    while (end < x.grid.heads && is_wanted(wanted, end)) ++end;
    if (end == first) {
      ++first;
      continue;
    }
    const std::int32_t kv = first / group, groups = first % group == 0 ? (end - first) / group : 0;
    const std::int32_t kv_heads = std::clamp(groups, 1, most);
    const std::int32_t heads = groups > 0 ? kv_heads * group : std::min(end, (kv + 1) * group) - first;
    each(first, heads, kv, kv_heads);
    first += heads;
  }
}

// The same keys, from KV head `kv` on.
inline PackedView from_head(PackedView keys, std::int32_t kv) {
  keys.data = keys.block(0, kv);
  return keys;
}

// Calls each(h, scores, score_row) for every wanted query head, on any worker: the scores of row i begin at
// scores + i * score_row, unscaled, with that of key `from`. Scores lie in kScoreSlot.
template <class Each>
void for_key_scores(const AttentionView& x, const FewRows& few, Context& context, const Each& each, Wanted wanted = {}) {
  constexpr std::int64_t kScoreFloats = 8 << 20;
  const std::int32_t group = x.grid.heads / x.hkv;
  const OrderedKeys keys = x.keys->ordered();
  op::StridedScores::Args s;
  s.stride = 1;
  s.dk = x.dk;
  s.n_rows = few.rows;
  s.n_keys = x.grid.n_keys - few.from;
  s.first_cell = keys.first_cell + few.from;
  s.q_head = few.q_head;
  s.q_row = few.q_row;
  s.score_row = s.good_row();
  s.first_key_of_row0 = few.first_key < 0 ? -1 : few.first_key - few.from;
  for_wanted_groups(x, wanted, kScoreFloats / (std::int64_t{group} * few.rows * s.score_row),
                    [&](std::int32_t first, std::int32_t heads, std::int32_t kv, std::int32_t kv_heads) {
    s.hq = heads;
    s.hkv = kv_heads;
    s.q = few.q + std::int64_t{first} * few.q_head;
    s.packed_k = from_head(keys.packed, kv);
    s.score = context.scratch_as<float>(kScoreSlot, static_cast<std::size_t>(s.hq * s.n_rows * s.score_row));
    context.run<op::StridedScores>(s);
    context.threads().each(s.hq, [&](int h, int) {
      each(first + h, s.score + std::int64_t{h} * s.n_rows * s.score_row, s.score_row);
    });
  });
}

}  // namespace lacuna::block
