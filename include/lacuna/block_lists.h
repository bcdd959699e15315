// SPDX-License-Identifier: Apache-2.0
// Plans without a session: what a method of closed form keeps in calls of a shape, and any plan as the lists of blocks
// and pages that kernels on a GPU walk.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lacuna/result.h"

namespace lacuna {

// A call as far as a method of closed form asks. Row i's own key is keys - rows + i.
struct CallShape {
  int layer = 0;
  std::int32_t heads = 1, kv_heads = 1;  // query heads, KV heads
  std::int32_t rows = 0;
  std::int64_t keys = 0;
  int head_dim = 1;
  bool causal = true;  // false: every row sees every key
};

// The words (engine/plan_words.h) of what the method keeps for one sequence. `options` as for parse_options().
// Errors: those of Session::open(); unsupported, by name, where the method looks at keys, or asks for an audit or a contract.
Result<std::vector<std::int32_t>> plan_of_shape(std::string_view options, const CallShape& shape);

// What rows may see besides the plan.
struct Allowed {
  std::int32_t rows = 0;
  std::int64_t keys = 0;
  bool causal = true;                // the last row is aligned with the last key; not looked at beside a mask
  const std::uint8_t* mask = nullptr;  // [masks][rows][keys], nonzero = may be seen; null: none
  std::int32_t masks = 1;            // 1, or one per sequence
};

// Lists of key blocks for every block of rows, as kernel/cuda/prefill.h reads them, and of pages, as
// kernel/cuda/decode.h does. Over what `Allowed` has without a mask, they keep what the plan keeps and a mask allows:
// the causal diagonal and the last key are the kernel's to see to.
struct BlockLists {
  bool dense = false;  // everything: there are no lists
  std::int32_t block_q = 128, block_k = 128;
  std::int32_t batches = 1, lists = 1;  // of sequences (1: all alike); of each: 1, one per KV head or per query head
  std::vector<std::int32_t> row_ptr;    // [batches][lists][row blocks + 1]
  std::vector<std::int32_t> columns;    // ascending within a list
  std::vector<std::int32_t> bits;       // of each column: -1 = all of it, else the number of its mask; empty: all -1
  std::vector<std::uint32_t> words;     // [masks][block_q][block_k / 32]
  // Pages: for at most 16 rows that all keep the same; cells 0: there are none.
  std::int32_t cells = 0, most = 0;     // keys of a page, a power of 2; room of each list
  std::vector<std::int32_t> counts;     // [batches][lists]
  std::vector<std::int32_t> pages;      // [batches][lists][most]
};

// `parts`: the words of each sequence of the batch, or of one that stands for all. Errors name what in the words, or
// between them and `allowed`, does not fit.
Result<BlockLists> block_lists(std::span<const std::span<const std::int32_t>> parts, const Allowed& allowed);

}  // namespace lacuna
