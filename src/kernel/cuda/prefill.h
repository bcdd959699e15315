// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Attention of many query rows on an NVIDIA GPU: the contract of op/attend.h for 16-bit tensors of a batch,
// over every key, a causal triangle, or lists of blocks. All pointers are in the device's memory.
//
//   s[i, j]  = scale * q_i . k_j               j visible to row i
//   out[i]   = sum_j softmax(s[i, :])_j v_j    products of 16-bit numbers, sums in f32, out rounded to 16 bits
//   lse[i]   = log sum_j exp(s[i, j])
//
// A row that sees nothing: out 0, lse -inf. NaN spreads as in op/attend.h. The last query row is aligned with
// the last key: causal, row i sees keys j <= i + nk - nq. Query head h reads KV head h / (hq / hkv).
//
// Nothing here waits for the device or allocates; a launch is one kernel, and a CUDA graph can hold it.
#pragma once

#include <cstdint>

#include "kernel/cuda/tensor.h"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda {

// Which blocks of keys the rows of a block of queries see. A list has row_ptr[b] .. row_ptr[b + 1] of the
// entries for query block b, each block at most once, in any order; row_ptr counts from the start of `columns`.
// Entry e is the keys from columns[e] * block_k on. bits null or bits[e] < 0: every pair of it (FULL), else those
// pairs whose bit is set (PARTIAL): key c of row r is bit c % 32 of
//   words[(bits[e] * block_q + r) * (block_k / 32) + c / 32],      r, c counted within the block.
// What lies beyond the last key or above the causal diagonal is invisible in either kind.
struct BlockLists {
  std::int32_t block_q = 128, block_k = 128;  // 64 or 128
  std::int32_t batches = 1;                   // 1: all sequences share the lists; else the batch's size
  std::int32_t heads = 1;                     // lists of a sequence: 1, one per KV head, or one per query head
  std::int32_t n_entries = 0, n_bits = 0;     // of columns (and bits), or more; of masks in words: for check_lists
  const std::int32_t* row_ptr = nullptr;      // [batches][heads][query blocks + 1]; null: no lists, all keys
  const std::int32_t* columns = nullptr;      // [n_entries] or as far as row_ptr goes
  const std::int32_t* bits = nullptr;         // [n_entries] or null
  const std::uint32_t* words = nullptr;       // [n_bits][block_q][block_k / 32], 16-byte aligned
};

struct Prefill {
  Dtype dtype = Dtype::bf16;  // of q, k, v, out: bf16 or f16
  std::int32_t batch = 1, hq = 1, hkv = 1, nq = 0, nk = 0, dk = 0, dv = 0;
  Tensor4 q, k, v, out;  // [batch][hq or hkv][nq or nk][dk or dv]; fast if 16-byte aligned, strides too
  float* lse = nullptr;  // [batch][hq][nq], or null
  float scale = 1.0f;    // > 0
  bool causal = false;
  BlockLists lists;
  // Two numbers, 0 before the first launch; every launch leaves them 0. Launches that may overlap in time need
  // two of their own each.
  std::uint32_t* work = nullptr;
};

// Why no kernel takes the call on the current device, in words a user understands; null = one does.
const char* prefill_why_not(const Prefill& a);

// Starts the kernel on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that
// prefill_why_not() refuses must not come here.
const char* prefill(const Prefill& a, void* stream);

// What can be wrong with lists; a kernel must not be given lists with any of it.
enum class ListError : std::uint32_t { none, row_ptr, column, twice, bits };

// Looks at every number of a call's lists on the device: starts a kernel on `stream` that sets *error (in the
// device's memory, none before) to what it finds, the last of the enum if several. Null = started, else CUDA's words.
const char* check_lists(const Prefill& a, ListError* error, void* stream);
const char* words_of(ListError error);

}  // namespace lacuna::kernel::cuda
