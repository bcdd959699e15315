// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// MInference's vertical-slash choice on an NVIDIA GPU (Jiang et al., NeurIPS 2024, arXiv:2407.02490): the estimate and the
// lines of method/prefill/minference.cpp, kind vertical-slash, for 16-bit queries and keys of a batch in the device's memory.
//
//   P[i, j]     = softmax over the keys j <= own(i) of  scale q_i . k_j           i of the last 64 rows
//   vertical[j] = sum over i of P[i, j],   slash[d] = sum over i of P[i, own(i) - d]
//   kept        = the `vertical` columns and `slash` distances of largest sums, of equal ones the lower index; the first `sink`
//                 columns and the nearest `window` distances are in and count
//   blocks      = those that hold a kept column, or a key at a kept distance from a row of the block (64 x 64 or 128 x 128)
//
// Lowered to blocks, more is attended to than the lines name; the CPU's plan keeps them as ranges of keys. Causal, the last
// query aligned with the last key. Fewer than 256 rows, 128 keys or fewer, or as many distances as keys: every block
// that a row sees. A score that is NaN carries no mass.
//
// As kernel/cuda/estimate/xattention.h: nothing waits, a CUDA graph can hold it, the same lists every time.
#pragma once

#include <cstdint>

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda {

struct MInference {
  Dtype dtype = Dtype::bf16;  // of q and k: bf16 or f16
  std::int32_t batch = 1, hq = 1, hkv = 1, nq = 0, nk = 0, dk = 0;
  Tensor4 q, k;                         // [batch][hq or hkv][nq or nk][dk]
  float scale = 1.0f;                   // > 0, of the model's scores
  std::int32_t block = 64;              // rows and keys of a block: 64 or 128
  std::int32_t vertical = 1000, slash = 6096;  // columns, distances; at least 1 each
  std::int32_t sink = 30, window = 100;        // columns, distances that are always in; 0 or more, window at least 1
  // What is written: lists of every query head, as BlockLists has them.
  std::int32_t* row_ptr = nullptr;  // [batch][hq][row blocks + 1]
  std::int32_t* columns = nullptr;  // [minference_entries(a)]; ascending in a list
  float* lines = nullptr;           // [batch][hq][2][nk]: the sums of columns and of distances; or null
  void* room = nullptr;             // minference_room(a) bytes, 256-byte aligned; used up
};

// The most entries that the lists can have: all blocks at or below the diagonal.
std::int64_t minference_entries(const MInference& a);
// Bytes of room: about 15 for each key of a query head.
std::int64_t minference_room(const MInference& a);
// Why the call is not taken on the current device, in words a user understands; null = it is.
const char* minference_why_not(const MInference& a);
// Starts the kernels on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that
// minference_why_not() refuses must not come here.
const char* minference(const MInference& a, void* stream);
// The lists that the call writes, for Prefill::lists.
BlockLists lists_of(const MInference& a);

}  // namespace lacuna::kernel::cuda
