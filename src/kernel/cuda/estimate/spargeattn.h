// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// SpargeAttn's choice of blocks on an NVIDIA GPU (Zhang et al., ICML 2025, arXiv:2502.18137): the estimate and the budget
// of method/prefill/spargeattn.cpp, mode mass, for 16-bit queries and keys of a batch in the device's memory.
//
//   sim(block)  = |sum of its unit vectors|^2 / n^2          trusted iff sim > similarity; keys less their mean (smooth)
//   p[u, b]     = softmax over trusted b of  mean q_u . mean k_b * scale
//   kept[h, u]  = the largest p while their sum stays within `mass` of all, at least one; all blocks that are not trusted,
//                 those of the first `sink` keys and of the rows' own keys; everything for a row block that is not trusted
//
// Causal, the last query aligned with the last key; the block of the rows' last own key counts the keys up to that. mass
// >= 1, fewer keys than two blocks or fewer than 32 rows: every block that a row sees. A vector with a NaN or an
// infinity is in no block that is trusted. Leaving out tiles inside attention (pv_skip) is not here.
//
// As kernel/cuda/estimate/xattention.h: nothing waits, a CUDA graph can hold it, the same lists every time.
#pragma once

#include <cstdint>

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda {

struct SpargeAttn {
  Dtype dtype = Dtype::bf16;  // of q and k: bf16 or f16
  std::int32_t batch = 1, hq = 1, hkv = 1, nq = 0, nk = 0, dk = 0;
  Tensor4 q, k;                                 // [batch][hq or hkv][nq or nk][dk]
  float scale = 1.0f;                           // > 0, of the model's scores
  std::int32_t row_block = 128, block = 128;    // rows and keys of a block: 64 or 128
  float mass = 0.98f;                           // > 0; 1 = everything
  float similarity = 0.6f;                      // -1 to 1
  std::int64_t sink = 0;                        // keys, 0 or more; whole blocks are kept
  bool smooth = true;                           // take the keys' mean off before they are compared
  // What is written: lists of every query head, as BlockLists has them.
  std::int32_t* row_ptr = nullptr;  // [batch][hq][row blocks + 1]
  std::int32_t* columns = nullptr;  // [spargeattn_entries(a)]; ascending in a list
  void* room = nullptr;             // spargeattn_room(a) bytes, 256-byte aligned; used up
};

// The most entries that the lists can have: all blocks at or below the diagonal.
std::int64_t spargeattn_entries(const SpargeAttn& a);
// Bytes of room: 4 for each pair of a head's blocks, and the blocks' sums.
std::int64_t spargeattn_room(const SpargeAttn& a);
// Why the call is not taken on the current device, in words a user understands; null = it is.
const char* spargeattn_why_not(const SpargeAttn& a);
// Starts the kernels on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that
// spargeattn_why_not() refuses must not come here.
const char* spargeattn(const SpargeAttn& a, void* stream);
// The lists that the call writes, for Prefill::lists.
BlockLists lists_of(const SpargeAttn& a);

}  // namespace lacuna::kernel::cuda
