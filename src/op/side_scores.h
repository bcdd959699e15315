// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Four ops that score a cache from its side data (kv/side.h), in order of cells. Scores are plain
// products: no scale, no soft-cap.
//
//   page_scores   bound[h, i, p] = sum_d max(q_d mn[p, d], q_d mx[p, d]), >= q.k of every key of page p
//   label_scores  est[h, i, c]   = sum over the r label channels of q_d k_d
//   int4_scores   est[h, i, c]   = q . (zero + scale n); a kernel may round the numbers q_d scale_d of a
//                 tile to multiples of a 127th of the largest of them
//   int8_scores   est[h, i, c]   = q . (centre + scale n); a kernel may round the numbers q_d of a row to multiples
//                 of a 127th of the largest of them
//
// How far int8_scores is from q . k, scale being the cell's and max|q| the row's:
//   |est - q . k| <= scale / 2 (sum_d |q_d|  +  Dk max|q|), the second term where q is rounded
//
// Visibility comes as the words of pattern/visibility.h, and a method may clear more of their bits:
// tiles without a set bit cost nothing but the filling. Hidden cells, pages without a visible cell, and
// what lies past the cache's end come out -infinity. A score that is no number comes out +infinity: what
// cannot be judged is kept.
#pragma once

#include <cstdint>

#include "kv/side.h"

namespace lacuna::op {

// What they have in common.
struct SideQuery {
  std::int32_t hq = 0, hkv = 0, dk = 0, n_rows = 0;
  std::int64_t n_cells = 0;  // cells looked at, from cell 0 on: at most the view's
  const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
  std::int64_t q_head = 0, q_row = 0;
  // Bit b of word t of (query head h, row i), at h * visible_head + i * visible_row + t: cell 32 t + b.
  // A stride of 0: all alike. Null: every cell.
  const std::uint32_t* visible = nullptr;
  std::int64_t visible_head = 0, visible_row = 0;
  // Element (h, i, x) at h * score_head + i * score_row + x. Whole tiles of 32 cells (pages) are
  // written: tiles_of(n_cells) * 32 numbers of a row (tiles_of(pages) * 32).
  float* score = nullptr;
  std::int64_t score_head = 0, score_row = 0;
};

// Only some tiles of 32 cells: those of KV head g are tiles[tile_ptr[g] .. tile_ptr[g + 1]). The scores
// of other tiles are left as they are. Null: all tiles.
struct SideTiles {
  const std::int32_t* tile_ptr = nullptr;  // [hkv + 1]
  const std::int32_t* tiles = nullptr;
};

struct PageScores {
  static constexpr const char* kName = "page_scores";
  struct Args : SideQuery {
    PageBounds pages;
    // One row of scores per KV head, the sum over its group: score then has hkv heads, and a cell is
    // visible if the group's first head sees it.
    bool sum_group = false;
  };
};

struct LabelScores {
  static constexpr const char* kName = "label_scores";
  struct Args : SideQuery {
    Labels labels;
    SideTiles only;
  };
};

struct Int4Scores {
  static constexpr const char* kName = "int4_scores";
  struct Args : SideQuery {
    Int4Keys keys;
    SideTiles only;
  };
};

struct Int8Scores {
  static constexpr const char* kName = "int8_scores";
  struct Args : SideQuery {
    Int8Keys keys;
    SideTiles only;
    bool round_q = true;  // false: kernels that round q do not take the call
  };
};

}  // namespace lacuna::op
