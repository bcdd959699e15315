// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// XAttention's choice of blocks on an NVIDIA GPU (Xu et al., ICML 2025, arXiv:2503.16428): the estimate and the budget
// of method/prefill/xattention.cpp, for 16-bit queries and keys of a batch in the device's memory.
//
//   A[m, n] = softmax over n <= own square of m  of  sum_s q[m S + S-1-s] . k[n S + s] * scale / (S * norm)
//   mass[h, u, b] = sum of A over the strided rows m of row block u and the squares n of key block b
//   kept[h, u]    = the fewest blocks with mass * (sum of the row's), largest first, of equal ones the lower index;
//                   those of the first `sink` keys and of the rows' newest `window` keys are in and count
//
// Where squares and strided rows lie is said in block/estimate/antidiagonal.h: on the keys' grid. Causal, the last
// query aligned with the last key. mass >= 1, fewer keys than two blocks, or fewer rows than two strides: every block
// that a row sees. A score that is NaN spoils the sum of its few neighbours in a row alone, which then has no mass.
//
// Nothing here waits for the device, allocates, or needs the length of a list on the host: what comes out is what
// kernel/cuda/prefill.h reads, and a CUDA graph can hold both. The same call gives the same lists every time.
#pragma once

#include <cstdint>

#include "kernel/cuda/prefill.h"

namespace lacuna::kernel::cuda {

struct XAttention {
  Dtype dtype = Dtype::bf16;  // of q and k: bf16 or f16
  std::int32_t batch = 1, hq = 1, hkv = 1, nq = 0, nk = 0, dk = 0;
  Tensor4 q, k;         // [batch][hq or hkv][nq or nk][dk]; fast if 16-byte aligned, strides too
  float scale = 1.0f;   // > 0, of the model's scores
  float norm = 1.0f;    // > 0; more than 1 flattens the estimate
  std::int32_t stride = 8, block = 128;  // S: 1, 2, 4, 8 or 16; rows and keys of a block: 64 or 128
  float mass = 0.9f;                     // > 0, share to keep; 1 = everything
  std::int64_t sink = 1, window = 1;     // keys, at least 1 each; whole blocks are kept
  // What is written: lists of every query head, as BlockLists has them.
  std::int32_t* row_ptr = nullptr;  // [batch][hq][row blocks + 1]
  std::int32_t* columns = nullptr;  // [xattention_entries(a)]; ascending in a list
  float* estimate = nullptr;        // [batch][hq][row blocks][key blocks]: mass of the blocks that a row sees; or null
  void* room = nullptr;             // xattention_room(a) bytes, 256-byte aligned; used up
  std::int64_t most_room = std::int64_t{512} << 20;  // bytes that KV heads may share for tiles; one alone may take more
};

// The most entries that the lists can have: all blocks at or below the diagonal.
std::int64_t xattention_entries(const XAttention& a);
// Bytes of room. About 2.2 MB for each query head at 64k tokens, stride 16 and block 128; it grows with the square of
// the length and of 1 / stride. Heads take turns in it where all would need more than most_room.
std::int64_t xattention_room(const XAttention& a);

// Why the call is not taken on the current device, in words a user understands; null = it is.
const char* xattention_why_not(const XAttention& a);

// Starts the kernels on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that
// xattention_why_not() refuses must not come here.
const char* xattention(const XAttention& a, void* stream);

// The lists that the call writes, for Prefill::lists.
BlockLists lists_of(const XAttention& a);

}  // namespace lacuna::kernel::cuda
