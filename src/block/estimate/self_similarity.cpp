// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/self_similarity.h"

#include "block/slots.h"
#include "op/alike.h"

namespace lacuna::block {

SelfSimilarity self_similarity(const AttentionView& x, std::int32_t block_q, std::int32_t block_k, bool smooth,
                               Context& context) {
  const Grid& g = x.grid;
  SelfSimilarity out;
  out.row_blocks = (g.n_rows + block_q - 1) / block_q;
  out.key_blocks = (g.n_keys + block_k - 1) / block_k;
  const std::int64_t of_rows = std::int64_t{g.heads} * out.row_blocks, of_keys = x.hkv * out.key_blocks;
  float* sim = context.scratch_as<float>(kAlikeSlot, static_cast<std::size_t>(of_rows + of_keys));
  out.rows = sim;
  out.keys = sim + of_rows;
  context.run<op::Alike>({.heads = g.heads,
                          .dim = x.dk,
                          .block = block_q,
                          .n = g.n_rows,
                          .dtype = Dtype::f32,
                          .x = x.q,
                          .head = x.q_head,
                          .row = x.q_row,
                          .sim = sim});
  const RawKeys& k = x.k;
  const auto* first = static_cast<const char*>(k.data) + (k.cell_of_key ? 0 : bytes_of(k.dtype, k.first_cell * k.cell));
  context.run<op::Alike>({.heads = x.hkv,
                          .dim = x.dk,
                          .block = block_k,
                          .n = g.n_keys,
                          .dtype = k.dtype,
                          .x = first,
                          .head = k.head,
                          .row = k.cell,
                          .place = k.cell_of_key,
                          .smooth = smooth,
                          .sim = sim + of_rows});
  return out;
}

}  // namespace lacuna::block
