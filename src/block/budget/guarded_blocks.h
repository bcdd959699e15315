// SPDX-License-Identifier: Apache-2.0
// Budget: the key blocks of a row block by pooled scores, where pooling can be trusted; blocks that
// their mean does not stand for are all kept (SpargeAttn, arXiv:2502.18137).
//   p = softmax over the trusted key blocks of score * scale
//   mass: the blocks of largest p while their sum, the next one with it, is <= mass, at least one;
//         all of them from mass = 1 on
//   keep: the keep * (key blocks of the call) blocks of largest p, at least one
// and always: key blocks that are not trusted, everything if the row block is not trusted itself, the
// first `sinks` blocks, and the blocks of the row block's own keys.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "block/budget/top_count.h"
#include "block/budget/top_mass.h"
#include "block/estimate/pooled.h"
#include "block/estimate/self_similarity.h"
#include "block/row_softmax.h"

namespace lacuna::block {

struct GuardRule {
  enum class By : std::uint8_t { mass, keep };
  By by = By::mass;
  double similarity = 0.6;  // trusted: self-similarity above it
  double mass = 0.98, keep = 0.5;
  std::int64_t sinks = 0;  // blocks
};

// One row block of one head.
struct GuardedRow {
  const float* score = nullptr;  // [blocks], unscaled
  float scale = 1.0f;
  std::int32_t blocks = 0;       // key blocks that begin at or before its last own key
  std::int32_t own = 0;          // the first of them that holds own keys
  std::int32_t call_blocks = 0;  // key blocks of the call
  float rows_alike = 0;          // self-similarity (block/estimate/self_similarity.h)
  const float* keys_alike = nullptr;  // [blocks]
};

// Row block u of query head h, out of the estimates for blocks of block_q rows and block_k keys.
inline GuardedRow guarded_row(const AttentionView& x, const PooledScores& scores, const SelfSimilarity& alike,
                              std::int32_t block_q, std::int32_t block_k, std::int32_t h, std::int32_t u) {
  return {.score = scores.row(h, u),
          .scale = x.scale,
          .blocks = static_cast<std::int32_t>(std::min(scores.key_blocks, causal_blocks(x.grid, block_q, block_k, u))),
          .own = static_cast<std::int32_t>(first_own_block(x.grid, block_q, block_k, u)),
          .call_blocks = static_cast<std::int32_t>(scores.key_blocks),
          .rows_alike = alike.of_rows(h, u),
          .keys_alike = alike.of_keys(h / (x.grid.heads / x.hkv))};
}

// Memory for one row at a time.
struct GuardWork {
  std::vector<float> p;
  std::vector<std::int32_t> trusted, kept;
  std::vector<float> work;
};

// Sets set[b] to 1 for every kept block, to 0 for the others below row.blocks.
inline void keep_guarded(const GuardRule& rule, const GuardedRow& row, GuardWork& w, std::uint8_t* set) {
  if (!(row.rows_alike > rule.similarity)) return static_cast<void>(std::fill(set, set + row.blocks, std::uint8_t{1}));
  w.p.clear();
  w.trusted.clear();
  for (std::int32_t b = 0; b < row.blocks; ++b) {
    const bool trusted = row.keys_alike[b] > rule.similarity;
    set[b] = !trusted || b < rule.sinks || b >= row.own;
    if (!trusted) continue;
    w.trusted.push_back(b);
    w.p.push_back(row.score[b] * row.scale);
  }
  const auto n = static_cast<std::int32_t>(w.p.size());
  if (n == 0) return;
  w.work.resize(w.p.size());
  w.kept.resize(w.p.size());
  std::int32_t count = n;
  if (rule.by == GuardRule::By::keep) {
    // Scores order as their softmax does, and the largest are asked for.
    for (float& s : w.p)
      if (!(s == s)) s = -std::numeric_limits<float>::infinity();
    const auto wanted = static_cast<std::int32_t>(rule.keep * row.call_blocks);
    count = top_count(w.p.data(), n, 0, std::max(wanted, 1), w.work.data(), w.kept.data());
  } else if (rule.mass < 1.0) {
    softmax(w.p.data(), n, 1.0f);
    count = top_mass(w.p.data(), n, 0, n, rule.mass, TopMass::within, w.work.data(), w.kept.data());
    if (count == 0) count = top_count(w.p.data(), n, 0, 1, w.work.data(), w.kept.data());
  } else {
    for (std::int32_t i = 0; i < n; ++i) w.kept[static_cast<std::size_t>(i)] = i;
  }
  for (std::int32_t i = 0; i < count; ++i) set[w.trusted[static_cast<std::size_t>(w.kept[static_cast<std::size_t>(i)])]] = 1;
}

}  // namespace lacuna::block
