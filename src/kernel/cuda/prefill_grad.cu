// SPDX-License-Identifier: Apache-2.0
// What every backward asks of a call, and which of them takes it: the best first, the plain one last.
#include "kernel/cuda/prefill_grad.h"

#include <cuda_runtime.h>

#include <cstdint>

#include "kernel/cuda/grad_rows.h"
#include "kernel/cuda/sm80/prefill_grad.h"
#include "kernel/cuda/sm90a/prefill_grad.h"

namespace lacuna::kernel::cuda {

std::int64_t prefill_grad_floats(const Prefill& a) { return grad_row_at(std::int64_t{a.batch} * a.hq, 0, a.nq); }

const char* prefill_grad_why_not(const PrefillGrad& a) {
  const Prefill& f = a.forward;
  if (const char* reason = prefill_why_not(f)) return reason;
  if (f.batch == 0) return nullptr;
  if (f.nq > 0 && (!f.lse || !a.rows || reinterpret_cast<std::uintptr_t>(a.rows) % 16 != 0))
    return "lse or rows is null, or rows is not 16-byte aligned";
  if (f.nq > 0 && !a.d_out.data) return "d_out is null";
  if (!a.d_k.data != !a.d_v.data) return "d_k and d_v must both be asked for, or neither";
  if (a.d_k.data && f.lists.row_ptr && f.nq > 0 && f.nk > 0) {
    if (!a.inverse.row_ptr || (f.lists.n_entries > 0 && !a.inverse.rows)) return "lists without their inverse";
    if (f.lists.bits && !a.inverse.bits) return "lists with masks, but an inverse without";
  }
  return sm90a::prefill_grad_why_not(a) ? sm80::prefill_grad_why_not(a) : nullptr;
}

const char* prefill_grad(const PrefillGrad& a, void* stream) {
  if (a.forward.batch == 0) return nullptr;
  if (a.forward.nq > 0) {
    if (const char* error = grad_rows(a, stream)) return error;
    return sm90a::prefill_grad_why_not(a) ? sm80::prefill_grad(a, stream) : sm90a::prefill_grad(a, stream);
  }
  PrefillGrad zeros = a;  // of keys that no row is there to see: their lists need not exist
  zeros.forward.lists.row_ptr = nullptr;
  return sm80::prefill_grad(zeros, stream);
}

}  // namespace lacuna::kernel::cuda
