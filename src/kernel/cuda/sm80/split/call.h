// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// A decode call in the kernel's terms.
//
// An item is up to kRows query rows of one KV head of one sequence, and all the keys they see, in units of kKeys. Every
// item has a unit, one without keys too: somebody must write its rows. Items come list by list: the items of a list
// have as many units each.
#pragma once

#include <cstdint>

#include "kernel/cuda/tensor.h"

namespace lacuna::kernel::cuda::sm80::split {

struct Call {
  Tensor4 q, k, v, out;
  float* lse;
  std::int32_t batch, hq, group, nq, nk;  // group: query heads of a KV head
  std::int32_t causal;
  float scale_log2;
  const std::int32_t* lengths;
  // Lists; counts null: every key, and list_heads 1.
  const std::int32_t *counts, *entries;
  std::int32_t list_heads, most, entry_shift;
  // Pages of the cache; table null: none.
  const std::int32_t* table;
  std::int32_t table_most, table_shift, n_pages;
  std::int32_t row_tiles, items;  // of a KV head; of a list
  // In `work`. A thread block has two slots: for an item that began before its share, and for one that goes on after.
  std::uint32_t* tickets;  // [items in all] pieces of the item that are done
  float* sums;             // [slot][kRows][kDv]
  float* stats;            // [slot][2][kRows]: largest score, sum of weights
};

}  // namespace lacuna::kernel::cuda::sm80::split
