// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// The gradients of kernel/cuda/prefill.h, whose letters these are. With G the gradient of some loss by `out`, and g
// that by `lse`:
//   p[i, j]  = exp(s[i, j] - lse[i])                      remade from q, k and the lse of forward
//   ds[i, j] = p[i, j] (G_i . v_j - G_i . out_i + g[i])   j visible to row i
//   dq[i]    = scale sum_j ds[i, j] k_j
//   dk[j]    = scale sum_i ds[i, j] q_i                   over the rows of all query heads of the KV head
//   dv[j]    =       sum_i  p[i, j] G_i
// (Dao et al., arXiv:2205.14135.) p and ds may be rounded to 16 bits before the last three products; sums are f32.
// Lists are constants. Terms of a number per key, sinks and soft-caps are not here: op/attend_grad.h has them.
//
// All of dq, dk and dv is written: 0 for rows that see nothing (lse -inf) and keys nobody sees. K and V in blocks
// that no list names do not matter. Any other number that is not finite may reach the gradients of whatever meets
// it in a block. The same call gives the same bits: every sum has its order.
//
// Nothing here waits for the device or allocates; a launch is a few kernels, and a CUDA graph can hold them.
#pragma once

#include <cstdint>

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda {

constexpr std::int32_t kInverseParts = 16;

// BlockLists by keys: of each list, for every block of keys the blocks of queries that name it, in rising order.
struct InverseLists {
  std::int32_t* row_ptr = nullptr;  // [batches][heads][key blocks + 1], counts as BlockLists::row_ptr does
  std::int32_t* rows = nullptr;     // [n_entries] blocks of queries
  std::int32_t* bits = nullptr;     // [n_entries], as BlockLists::bits; null where that is
  std::int32_t* counts = nullptr;   // [batches][heads][kInverseParts][key blocks], used by invert_lists alone
};

// Starts the kernels that fill `to` with the inverse of a.lists, which must be right (check_lists), and whose lists
// must not share entries. Once for a selection, then as many backwards as there are. Null = started, else CUDA's words.
const char* invert_lists(const Prefill& a, const InverseLists& to, void* stream);

struct PrefillGrad {
  Prefill forward;               // as it was; out and lse are read, and lse must be there
  InverseLists inverse;          // of forward.lists
  Tensor4 d_out;                 // G: [batch][hq][nq][dv]
  const float* d_lse = nullptr;  // g: [batch][hq][nq]; null = 0
  Tensor4 d_q, d_k, d_v;         // written, of forward.dtype; not asked for: d_q null, or both d_k and d_v
  float* rows = nullptr;         // room for prefill_grad_floats() numbers, 16-byte aligned
};

std::int64_t prefill_grad_floats(const Prefill& a);

// Why no kernel takes the call on the current device, in words a user understands; null = one does.
const char* prefill_grad_why_not(const PrefillGrad& a);

// Starts the kernels on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that
// prefill_grad_why_not() refuses must not come here.
const char* prefill_grad(const PrefillGrad& a, void* stream);

}  // namespace lacuna::kernel::cuda
