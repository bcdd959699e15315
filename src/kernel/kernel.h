// SPDX-License-Identifier: Apache-2.0
// lacuna: pod
// A kernel: one body for one op on one kind of machine, as data. A list of kernels (kernel/list/) is
// ordered best first, the reference last; engine/pick takes the first that has no reason to refuse.
//
// A kernel owns no threads and no memory. Its work is a number of independent tasks in one or more
// phases (each starts when the one before has ended: split-KV merges, say); the caller runs them on
// any workers, in any order. Results must not depend on that order.
#pragma once

#include <cstddef>

#include "base/machine.h"
#include "kv/packed.h"

namespace lacuna::kernel {

template <class Op>
struct Kernel {
  using Args = typename Op::Args;
  const char* name = "";
  Features needs = 0;
  PackFormat pack = PackFormat::none;  // the packed form it reads; none = the raw tensors
  // If set, the kernel is only taken when it is forced by name, and this says why.
  const char* only_forced = nullptr;
  // Why this kernel cannot take the call, in words a user understands; null = it can. `workers` is
  // how many threads will run it.
  const char* (*why_not)(const Args&, int workers) = nullptr;
  // Why a kernel further down the list is better at the call, though this one can take it; null = it is
  // not. Not asked where this one is forced by name.
  const char* (*yields)(const Args&) = nullptr;
  int phases = 1;
  int (*tasks)(const Args&, int phase, int workers) = nullptr;
  std::size_t (*scratch_bytes)(const Args&) = nullptr;              // per worker; may be null
  std::size_t (*shared_bytes)(const Args&, int workers) = nullptr;  // for all; may be null
  // scratch and shared are 64-byte aligned and hold anything at the start.
  void (*run)(const Args&, int phase, int task, int workers, void* scratch, void* shared) = nullptr;
};

template <class Op>
struct KernelList {
  const Kernel<Op>* const* first = nullptr;
  const Kernel<Op>* const* last = nullptr;
  const Kernel<Op>* const* begin() const { return first; }
  const Kernel<Op>* const* end() const { return last; }
};

}  // namespace lacuna::kernel
