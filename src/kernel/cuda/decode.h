// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// Attention of few query rows over many keys on an NVIDIA GPU: the contract of op/attend.h for 16-bit tensors of a
// batch, over every key or over lists of pages, in a cache that lies in order or in pages. All pointers are in the
// device's memory.
//
//   s[i, j]  = scale * q_i . k_j               j visible to row i
//   out[i]   = sum_j softmax(s[i, :])_j v_j    products of 16-bit numbers, sums in f32, out rounded to 16 bits
//   lse[i]   = log sum_j exp(s[i, j])
//
// A row that sees nothing: out 0, lse -inf. NaN spreads as in op/attend.h. The last query row is aligned with the
// sequence's last key: causal, row i sees keys j <= i + length - nq. Query head h reads KV head h / (hq / hkv), and
// all rows of a KV head read its keys together.
//
// Nothing here waits for the device or allocates; a launch is one kernel, lengths and lists are read on the device
// alone, and a CUDA graph can hold it. The same call on the same kind of GPU gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernel/cuda/tensor.h"
#include "lacuna/dtype.h"

namespace lacuna::kernel::cuda {

// Which keys the rows see. Entry e of a list is keys pages[e] * cells on, by their number in the sequence, or -1:
// none. In any order, each page at most once. What lies beyond the sequence's length is not seen and not read.
struct PageLists {
  std::int32_t cells = 16;               // keys of an entry, a power of 2 up to 256; 1: a list of tokens
  std::int32_t heads = 1;                // lists of a sequence: 1, or one per KV head
  std::int32_t most = 0;                 // entries that each list has room for
  const std::int32_t* counts = nullptr;  // [batch][heads] entries of each list; null: no lists, all keys
  const std::int32_t* pages = nullptr;   // [batch][heads][most]
};

// Where the keys of a sequence lie: key j in cell j % cells of page pages[b][j / cells] of the cache. Element (page, h,
// cell, d) of k is then at page * k.batch + h * k.head + cell * k.row + d. A key whose page is outside the cache is
// not seen and not read.
struct PageTable {
  std::int32_t cells = 16;              // of a page of the cache, a power of 2 up to 256
  std::int32_t most = 0;                // pages that each sequence has room for
  std::int32_t n_pages = 0;             // of the cache
  const std::int32_t* pages = nullptr;  // [batch][most]; null: no pages, sequence b is k's b
};

struct Decode {
  Dtype dtype = Dtype::bf16;  // of q, k, v, out: bf16 or f16
  std::int32_t batch = 1, hq = 1, hkv = 1, nq = 1, nk = 0, dk = 0, dv = 0;
  Tensor4 q, k, v, out;                   // [batch][hq or hkv][nq or nk][dk or dv]; k, v: or [page][hkv][cell][..]
  const std::int32_t* lengths = nullptr;  // [batch] keys of each sequence, up to nk; null: all have nk
  float* lse = nullptr;                   // [batch][hq][nq], or null
  float scale = 1.0f;                     // > 0
  bool causal = false;
  PageLists lists;
  PageTable table;
  // decode_work_bytes() of memory, 16-byte aligned, all 0 before the first launch; a launch leaves it ready for the
  // next one of the same call or one with other numbers in lengths, lists and table. Launches that may overlap in time
  // need their own.
  void* work = nullptr;
};

// Why no kernel takes the call on the current device, in words a user understands; null = one does. Does not look at
// `work`.
const char* decode_why_not(const Decode& a);

// Memory that a call needs beside its tensors, on the current device. A call that decode_why_not() refuses: 0.
std::size_t decode_work_bytes(const Decode& a);

// Starts the kernel on `stream` (a cudaStream_t); null = started, else CUDA's words. A call that decode_why_not()
// refuses must not come here.
const char* decode(const Decode& a, void* stream);

// What can be wrong with lengths, lists and a table. The kernel reads nothing outside the tensors even so, but what it
// makes of such a call is of no use.
enum class PageError : std::uint32_t { none, length, count, page, twice, table };

// Looks at every number of a call's lengths, lists and table on the device: starts a kernel on `stream` that sets
// *error (in the device's memory, none before) to what it finds, the last of the enum if several. Null = started,
// else CUDA's words.
const char* check_pages(const Decode& a, PageError* error, void* stream);
const char* words_of(PageError error);

}  // namespace lacuna::kernel::cuda
