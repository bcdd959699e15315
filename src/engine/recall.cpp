// SPDX-License-Identifier: Apache-2.0
// Recall of the top keys: of the keys with a row's largest exact scores, the share that was kept (docs/account.md). It takes a row's
// scores one by one, so few rows and one head of each are looked at; which, a generator of its own says.
#include <algorithm>
#include <cmath>
#include <functional>

#include "base/half.h"
#include "engine/session.h"
#include "pattern/kept_cells.h"

namespace lacuna {
namespace {

constexpr std::uint64_t kRecallEvery = 8;  // drawn rows of a prompt, of which one is looked at; of a decoded token each is
constexpr std::int64_t kTopKeys = 64;      // and no more than a sixteenth of the keys that the row sees
constexpr std::int64_t kTopShare = 16;

}  // namespace

// Whether this drawn row is looked at for its recall, and in which head.
bool Session::Impl::draw_recall(bool decode_call, int heads, int& head) {
  if (!decode_call && recall_rng.below(kRecallEvery) != 0) return false;
  head = static_cast<int>(recall_rng.below(static_cast<std::uint64_t>(heads)));
  return true;
}

// q . k of one row and head with the cells of tiles [begin, end); k is packed.
const float* Session::Impl::scores_of(const op::Attend::Args& a, int head, std::int32_t row, std::int64_t begin, std::int64_t end) {
  op::StridedScores::Args s;
  const int kv_head = head / (a.hq / a.hkv);
  s.stride = 1;
  s.hq = s.hkv = s.n_rows = 1;
  s.dk = a.dk;
  s.first_cell = begin * kTileKeys;
  s.n_keys = std::min(end * kTileKeys, a.n_cells) - s.first_cell;
  s.q = a.q + head * a.q_head + row * a.q_row;
  s.packed_k = call_k;
  s.packed_k.data = call_k.block(0, kv_head);  // its first head is ours
  s.first_key_of_row0 = -1;
  s.score_row = s.good_row();
  s.score = recall_scores.grow_as<float>(static_cast<std::size_t>(s.score_row));
  run<op::StridedScores>(s);
  return s.score;
}

// The share of a row's top keys that `a` left out; < 0: its scores cannot be had, as nothing packed the keys.
double Session::Impl::missed_top_keys(const MaskEntry& mask, const Segment& segment, std::int32_t row, int head, const op::Attend::Args& a) {
  if (!keys_packed || call_k.format == PackFormat::none) return -1;
  const Visibility& v = mask.visible;
  const std::uint32_t* visible = v.words(segment.row_begin + row);
  std::int64_t begin = 0, end = v.n_tiles();
  while (begin < end && !visible[begin]) ++begin;
  while (end > begin && !visible[end - 1]) --end;
  const float* product = scores_of(a, head, row, begin, end);
  ranked.clear();
  for (std::int64_t t = begin; t < end; ++t)
    for (std::uint32_t bits = visible[t]; bits; bits &= bits - 1) {
      const std::int64_t cell = t * kTileKeys + __builtin_ctz(bits);
      float score = a.scale * product[cell - begin * kTileKeys];
      if (a.bias) {
        if (a.softcap > 0) score = a.softcap * std::tanh(score / a.softcap);
        score += (a.slope ? a.slope[head] : 1.0f) * half_to_float(a.bias[row * a.bias_row + cell]);
      }
      ranked.push_back({std::isnan(score) ? -INFINITY : score, static_cast<std::int32_t>(cell)});
    }
  const auto n = static_cast<std::int64_t>(ranked.size()), top = std::min(kTopKeys, n / kTopShare);
  if (top < 1) return -1;
  std::nth_element(ranked.begin(), ranked.begin() + (top - 1), ranked.end(), std::greater<>());
  kept_words.resize(static_cast<std::size_t>(v.n_tiles()));
  kept_cells(a.runs, head, row, kept_words);
  const auto missed = std::count_if(ranked.begin(), ranked.begin() + top, [&](const auto& key) {
    return !(kept_words[static_cast<std::size_t>(key.second / kTileKeys)] >> (key.second % kTileKeys) & 1u);
  });
  return static_cast<double>(missed) / static_cast<double>(top);
}

void Session::Impl::count_recall(double missed, bool nothing_left_out) {
  if (missed < 0) return;
  phase->missed.add(missed);
  phase->missed.end_draw(nothing_left_out);
}

}  // namespace lacuna
