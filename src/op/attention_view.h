// SPDX-License-Identifier: Apache-2.0
// AttentionView: what a method, and the parts it is made of, may look at: the rows of one sequence in
// one call of one layer.
#pragma once

#include <cstdint>

#include "kv/packed.h"
#include "kv/raw.h"
#include "kv/side.h"
#include "op/side_scores.h"
#include "pattern/pattern.h"
#include "pattern/visibility.h"

namespace lacuna {

enum class Phase : std::uint8_t { prefill, decode };

// Packed keys of a segment, in order.
struct OrderedKeys {
  PackedView packed;            // key j lies in cell first_cell + j
  std::int64_t first_cell = 0;  // a multiple of 16
};
class KeyOrder {
 public:
  virtual ~KeyOrder() = default;
  virtual OrderedKeys ordered() = 0;
};

// The cache as it lies: cells of all sequences, in any order, and what the rows see of them.
struct Cells {
  std::int64_t n = 0;
  const std::uint32_t* visible = nullptr;  // row i: bit b of word i * visible_row + t = cell 32 t + b
  std::int64_t visible_row = 0;            // tiles_of(n)
  std::int64_t own = -1;                   // the cell of the first row's own key
  const Segment* segment = nullptr;        // translates: key(cell), cell(key)
  SideView side;  // what Method::side asked for; a kind without data does not fit this cache
};

// What a method may look at: the rows of one sequence in one call of one layer. Keys are numbered by
// position (pattern/visibility.h); row i's own key is first_key + i.
struct AttentionView {
  int layer = 0;
  int n_layers = 0;  // 0 = the host does not know yet
  Phase phase = Phase::prefill;
  Grid grid;
  int hkv = 1, dk = 0;
  float scale = 1.0f;
  std::int64_t prompt_tokens = -1;  // the prompt's whole length if announced, else -1

  const float* q = nullptr;  // element (h, i, d) at h * q_head + i * q_row + d
  std::int64_t q_head = 0, q_row = 0;
  // The packed keys in order. Where the cache holds them otherwise (several sequences in it, a context
  // shift), asking copies them once per call: methods that need no order look at `cells` instead.
  KeyOrder* keys = nullptr;
  Cells cells;
  // The same keys, and their values, as the cache has them, by key number: exact and slow.
  RawKeys k, v;

  // Fills the part of an op on side data that this view knows: all but the scores and the data.
  void ask(op::SideQuery& a) const {
    a.hq = grid.heads;
    a.hkv = hkv;
    a.dk = dk;
    a.n_rows = grid.n_rows;
    a.n_cells = cells.n;
    a.q = q;
    a.q_head = q_head;
    a.q_row = q_row;
    a.visible = cells.visible;
    a.visible_row = cells.visible_row;
  }
};

}  // namespace lacuna
