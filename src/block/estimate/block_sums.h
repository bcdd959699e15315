// SPDX-License-Identifier: Apache-2.0
// Sums of the vectors of each block: of the keys, and of the rows' queries. What means, and pooled scores, are made of;
// made once for all that ask for them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "op/attention_view.h"
#include "op/context.h"

namespace lacuna::block {

struct BlockSums {
  const float* sum = nullptr;  // [heads][blocks][dim]
  std::int32_t dim = 0, block = 0;
  std::int64_t n = 0;          // vectors, of which the last block has what is left
  std::int64_t blocks() const { return (n + block - 1) / block; }
  const float* of(std::int64_t head, std::int64_t b) const { return sum + (head * blocks() + b) * dim; }
  std::int64_t size(std::int64_t b) const { return std::min<std::int64_t>(block, n - b * block); }
};

BlockSums key_sums(const AttentionView& x, std::int32_t block, Context& context);  // of all KV heads, in kKeySumSlot
BlockSums row_sums(const AttentionView& x, std::int32_t block, Context& context);  // of all query heads, in kPoolSlot

// Tells an op that reads raw vectors to read the keys.
template <class Args>
void read_keys(Args& a, const AttentionView& x) {
  const RawKeys& k = x.k;
  a.heads = x.hkv;
  a.dim = x.dk;
  a.dtype = k.dtype;
  a.x = static_cast<const char*>(k.data) + (k.cell_of_key ? 0 : bytes_of(k.dtype, k.first_cell * k.cell));
  a.head = k.head;
  a.row = k.cell;
  a.place = k.cell_of_key;
}
// The same with the queries.
template <class Args>
void read_rows(Args& a, const AttentionView& x) {
  a.heads = x.grid.heads;
  a.dim = x.dk;
  a.x = x.q;
  a.head = x.q_head;
  a.row = x.q_row;
}

}  // namespace lacuna::block
