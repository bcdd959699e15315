// SPDX-License-Identifier: Apache-2.0
// What every prefill kernel asks of a call, and which of them takes it: the best first, the plain one last.
#include "kernel/cuda/prefill.h"

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

#include "kernel/cuda/sm80/prefill.h"
#include "kernel/cuda/sm90a/prefill.h"

namespace lacuna::kernel::cuda {
namespace {

constexpr std::int32_t kMost = 1 << 29;  // of rows and of keys: sums of two must fit

const char* lists_why_not(const Prefill& a) {
  const BlockLists& l = a.lists;
  if (!l.row_ptr) return nullptr;
  if ((l.block_q != 64 && l.block_q != 128) || (l.block_k != 64 && l.block_k != 128))
    return "blocks of lists must have 64 or 128 queries and 64 or 128 keys";
  if (l.heads != 1 && l.heads != a.hkv && l.heads != a.hq)
    return "lists must be one, one per KV head, or one per query head";
  if (l.batches != 1 && l.batches != a.batch) return "lists must be for one sequence or for each of the batch";
  if (std::int64_t{l.batches} * l.heads > 65535) return "more than 65535 lists";
  if (l.n_entries < 0 || l.n_bits < 0) return "entries and masks of lists must be 0 or more";
  if (l.n_entries > 0 && !l.columns) return "lists with entries, but without columns";
  if (l.bits && l.n_bits > 0 && (!l.words || reinterpret_cast<std::uintptr_t>(l.words) % 16 != 0))
    return "words of partial blocks must be there, and 16-byte aligned";
  if (l.n_bits > INT32_MAX / (128 * 2)) return "more than 8 million masks of partial blocks";
  return nullptr;
}

}  // namespace

const char* prefill_why_not(const Prefill& a) {
  if (a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) return "q, k, v and out must be bf16 or f16";
  if (a.batch < 0 || a.nq < 0 || a.nk < 0 || a.nq > kMost || a.nk > kMost)
    return "batch, rows and keys must be 0 to 2^29";
  if (a.hq < 1 || a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (!(a.scale > 0) || !std::isfinite(a.scale)) return "scale must be positive and finite";
  if (std::int64_t{a.batch} * a.hq * ((std::int64_t{a.nq} + 63) / 64) > INT32_MAX / 2)
    return "more than 2^30 blocks of 64 rows";
  if (!a.work) return "work is null: two numbers of device memory, 0 at first";
  if (a.nq > 0 && a.batch > 0) {
    if (!a.q.data || !a.out.data) return "q or out is null";
    if (a.nk > 0 && (!a.k.data || !a.v.data)) return "k or v is null";
  }
  if (const char* reason = lists_why_not(a)) return reason;
  return sm90a::prefill_why_not(a) ? sm80::prefill_why_not(a) : nullptr;
}

const char* prefill(const Prefill& a, void* stream) {
  if (a.batch == 0 || a.nq == 0) return nullptr;
  return sm90a::prefill_why_not(a) ? sm80::prefill(a, stream) : sm90a::prefill(a, stream);
}

}  // namespace lacuna::kernel::cuda
