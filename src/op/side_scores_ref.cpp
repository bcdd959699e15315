// SPDX-License-Identifier: Apache-2.0
#include "op/side_scores_ref.h"

#include <bit>
#include <cmath>
#include <limits>

#include "base/half.h"
#include "op/side_write_ref.h"

namespace lacuna::op {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

bool sees(const SideQuery& a, int h, int i, std::int64_t cell) {
  if (cell >= a.n_cells) return false;
  return !a.visible || (a.visible[h * a.visible_head + i * a.visible_row + cell / kTileKeys] >> (cell % kTileKeys) & 1u);
}

float number(const void* data, Dtype type, std::int64_t at) {
  return type == Dtype::f32 ? static_cast<const float*>(data)[at] : half_to_float(static_cast<const std::uint16_t*>(data)[at]);
}

// Calls score(h, i, cell) for the tiles that are asked for and puts what comes out in its place.
template <class Score>
void each_cell(const SideQuery& a, const SideTiles& only, int kv_head, const Score& score) {
  const int group = a.hq / a.hkv;
  const std::int64_t n = only.tile_ptr ? only.tile_ptr[kv_head + 1] - only.tile_ptr[kv_head] : tiles_of(a.n_cells);
  for (std::int64_t j = 0; j < n; ++j) {
    const std::int64_t tile = only.tile_ptr ? only.tiles[only.tile_ptr[kv_head] + j] : j;
    for (int h = kv_head * group; h < (kv_head + 1) * group; ++h)
      for (int i = 0; i < a.n_rows; ++i)
        for (std::int64_t c = tile * kTileKeys; c < (tile + 1) * kTileKeys; ++c) {
          const float x = sees(a, h, i, c) ? static_cast<float>(score(h, i, c)) : -kInfinity;
          a.score[h * a.score_head + i * a.score_row + c] = std::isnan(x) ? kInfinity : x;
        }
  }
}

}  // namespace

template <class Number>
void page_scores_ref(const PageScores::Args& a, int kv_head) {
  const PageBounds& x = a.pages;
  const int group = a.hq / a.hkv, summed = a.sum_group ? group : 1;
  for (int g = 0; g < group / summed; ++g)
    for (int i = 0; i < a.n_rows; ++i)
      for (std::int64_t p = 0; p < tiles_of((a.n_cells + x.page - 1) / x.page) * kTileKeys; ++p) {
        const int head = kv_head * group + g;
        bool any = false;
        for (std::int64_t c = p * x.page; c < (p + 1) * x.page; ++c) any = any || sees(a, head, i, c);
        float& score = a.score[(a.sum_group ? kv_head : head) * a.score_head + i * a.score_row + p];
        score = -kInfinity;
        if (!any) continue;
        Number sum = 0;
        for (int h = head; h < head + summed; ++h) {
          const float* q = a.q + h * a.q_head + i * a.q_row;
          // max(q mn, q mx), written so that a bound that is no finite number makes the sum none.
          for (int d = 0; d < a.dk; ++d)
            sum += Number{q[d] < 0 ? q[d] : 0.0f} * Number{number(x.data, x.type, page_offset(x, p, kv_head, d, false))} +
                   Number{q[d] > 0 ? q[d] : 0.0f} * Number{number(x.data, x.type, page_offset(x, p, kv_head, d, true))};
        }
        score = std::isnan(sum) ? kInfinity : static_cast<float>(sum);
      }
}

template <class Number>
void label_scores_ref(const LabelScores::Args& a, int kv_head) {
  const Labels& x = a.labels;
  each_cell(a, a.only, kv_head, [&](int h, int i, std::int64_t c) {
    Number sum = 0;
    for (int r = 0; r < x.count; ++r)
      sum += Number{a.q[h * a.q_head + i * a.q_row + x.channels[static_cast<std::int64_t>(kv_head) * x.count + r]]} *
             Number{number(x.data, x.type, label_offset(x, c, kv_head, r))};
    return sum;
  });
}

template <class Number>
void int4_scores_ref(const Int4Scores::Args& a, int kv_head) {
  const Int4Keys& x = a.keys;
  const auto* words = static_cast<const std::uint32_t*>(x.data);
  const auto* halves = static_cast<const std::uint16_t*>(x.data);
  each_cell(a, a.only, kv_head, [&](int h, int i, std::int64_t c) {
    Number sum = 0;
    for (int d = 0; d < a.dk; ++d) {
      const Number scale = half_to_float(halves[int4_range_offset(x, c / kTileKeys, kv_head, d, false)]);
      const Number zero = half_to_float(halves[int4_range_offset(x, c / kTileKeys, kv_head, d, true)]);
      const std::uint32_t n = words[int4_offset(x, c, kv_head, d / 8)] >> int4_shift(d % 8) & 15u;
      sum += Number{a.q[h * a.q_head + i * a.q_row + d]} * (zero + scale * static_cast<Number>(n));
    }
    return sum;
  });
}

template <class Number>
void int8_scores_ref(const Int8Scores::Args& a, int kv_head) {
  const Int8Keys& x = a.keys;
  const auto* numbers = static_cast<const std::int8_t*>(x.data);
  each_cell(a, a.only, kv_head, [&](int h, int i, std::int64_t c) {
    const Number scale = static_cast<const float*>(x.data)[int8_scale_offset(x, c, kv_head)];
    Number sum = 0;
    for (int d = 0; d < a.dk; ++d) {
      const Number centre = bf16_to_float(static_cast<const std::uint16_t*>(x.data)[int8_centre_offset(x, c / kTileKeys, kv_head, d)]);
      const Number n = numbers[int8_offset(x, c, kv_head, d)];
      sum += Number{a.q[h * a.q_head + i * a.q_row + d]} * (centre + scale * n);
    }
    return sum;
  });
}

template void page_scores_ref<double>(const PageScores::Args&, int);
template void page_scores_ref<float>(const PageScores::Args&, int);
template void label_scores_ref<double>(const LabelScores::Args&, int);
template void label_scores_ref<float>(const LabelScores::Args&, int);
template void int4_scores_ref<double>(const Int4Scores::Args&, int);
template void int4_scores_ref<float>(const Int4Scores::Args&, int);
template void int8_scores_ref<double>(const Int8Scores::Args&, int);
template void int8_scores_ref<float>(const Int8Scores::Args&, int);

}  // namespace lacuna::op
