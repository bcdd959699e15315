// SPDX-License-Identifier: Apache-2.0
// The host's side of decode: what is asked of a call, which form of the kernel takes it, the launch.
#include "kernel/cuda/decode.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/sm80/split/instance.cuh"

namespace lacuna::kernel::cuda {

namespace sm80::split {
#define LACUNA_SHAPE(dk, dv) Instances instances_##dk##_##dv();
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE
}  // namespace sm80::split

namespace {

using sm80::split::Call;
using sm80::split::Instance;
using sm80::split::Instances;

constexpr std::int32_t kMostKeys = 1 << 29, kMostRows = 16, kMostCells = 256;

// The form for a call: the one of fewest rows that holds those of a KV head, else the largest; null = none.
const Instance* choose(const Decode& a) {
  const Instance* best = nullptr;
  const int rows = a.hq / a.hkv * a.nq;
  const auto look = [&](Instances all) {
    for (const Instance& i : all)
      if (i.dtype == a.dtype && i.dk == a.dk && i.dv == a.dv && (!best || best->rows < rows)) best = &i;
  };
#define LACUNA_SHAPE(dk, dv) look(sm80::split::instances_##dk##_##dv());
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE
  return best;
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }
bool strided(const Tensor4& t) {
  const auto fits = [](std::int64_t stride) { return stride >= 0 && stride % 8 == 0; };
  return fits(t.batch) && fits(t.head) && fits(t.row);
}
bool power_of_2(std::int32_t n) { return n >= 1 && n <= kMostCells && (n & (n - 1)) == 0; }
std::int32_t log2_of(std::int32_t n) {
  std::int32_t log = 0;
  while (1 << log < n) ++log;
  return log;
}

const char* lists_why_not(const Decode& a) {
  const PageLists& l = a.lists;
  if (l.counts) {
    if (!power_of_2(l.cells)) return "a list's pages must have 1, 2, 4, .. 256 keys";
    if (l.heads != 1 && l.heads != a.hkv) return "lists must be one, or one per KV head";
    if (l.most < 0 || std::int64_t{l.most} * l.cells > kMostKeys) return "lists must have room for 0 to 2^29 keys";
    if (l.most > 0 && !l.pages) return "lists with room for pages, but without pages";
  }
  const PageTable& t = a.table;
  if (t.pages) {
    if (!power_of_2(t.cells)) return "a cache's pages must have 1, 2, 4, .. 256 cells";
    if (t.n_pages < 0 || t.most < 0) return "pages of a cache must be 0 or more";
    if (std::int64_t{t.most} * t.cells < a.nk) return "the page table has no room for nk keys";
  }
  return nullptr;
}

// What a launch needs to know of the device.
struct Launch {
  const Instance* form = nullptr;
  std::int64_t blocks = 0, items = 0;
  cudaError_t error = cudaSuccess;
};
Launch launch_of(const Decode& a) {
  Launch x;
  x.form = choose(a);
  int device = 0, processors = 0, each = 0;
  const auto shared = static_cast<std::size_t>(x.form->shared_bytes);
  x.error = cudaGetDevice(&device);
  if (x.error == cudaSuccess) x.error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (x.error == cudaSuccess)
    x.error = cudaFuncSetAttribute(x.form->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, x.form->shared_bytes);
  if (x.error == cudaSuccess)
    x.error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, x.form->kernel, x.form->threads, shared);
  const int rows = a.hq / a.hkv * a.nq;
  x.blocks = std::int64_t{processors} * each;
  x.items = std::int64_t{a.batch} * a.hkv * ((rows + x.form->rows - 1) / x.form->rows);
  return x;
}

// `work`: tickets of the items, then a slot's sums and statistics, two slots for each thread block.
std::int64_t ticket_bytes(const Launch& x) { return (x.items * 4 + 15) / 16 * 16; }
std::int64_t sum_floats(const Launch& x) { return 2 * x.blocks * x.form->rows * x.form->dv; }
std::int64_t stat_floats(const Launch& x) { return 2 * x.blocks * x.form->rows * 2; }

Call call_of(const Decode& a, const Launch& x) {
  Call c{};
  c.q = a.q, c.k = a.k, c.v = a.v, c.out = a.out, c.lse = a.lse;
  c.batch = a.batch, c.hq = a.hq, c.group = a.hq / a.hkv, c.nq = a.nq, c.nk = a.nk;
  c.causal = a.causal;
  c.scale_log2 = a.scale * 1.44269504f;
  c.lengths = a.lengths;
  c.list_heads = 1;
  if (a.lists.counts) {
    c.counts = a.lists.counts, c.entries = a.lists.pages, c.most = a.lists.most;
    c.list_heads = a.lists.heads, c.entry_shift = log2_of(a.lists.cells);
  }
  c.table = a.table.pages, c.table_most = a.table.most, c.n_pages = a.table.n_pages;
  c.table_shift = log2_of(a.table.cells);
  c.row_tiles = (c.group * a.nq + x.form->rows - 1) / x.form->rows;
  c.items = a.hkv / c.list_heads * c.row_tiles;
  auto* work = static_cast<unsigned char*>(a.work);
  c.tickets = reinterpret_cast<std::uint32_t*>(work);
  c.sums = reinterpret_cast<float*>(work + ticket_bytes(x));
  c.stats = c.sums + sum_floats(x);
  return c;
}

}  // namespace

const char* decode_why_not(const Decode& a) {
  const int can = capability();
  if (can < 80) return can ? "the GPU is older than compute capability 8.0 (A100)" : "there is no CUDA device";
  if (a.dtype != Dtype::bf16 && a.dtype != Dtype::f16) return "q, k, v and out must be bf16 or f16";
  if (a.hq < 1 || a.hkv < 1 || a.hq % a.hkv != 0) return "query heads must be a multiple of KV heads";
  if (a.nq < 1 || a.nq > kMostRows) return "query tokens must be 1 to 16; prefill takes more";
  if (a.batch < 0 || a.nk < 0 || a.nk > kMostKeys) return "the batch must be 0 or more, keys 0 to 2^29";
  if (std::int64_t{a.batch} * a.hq * a.nq > INT32_MAX / 2) return "more than 2^30 query rows";
  if (!(a.scale > 0) || !std::isfinite(a.scale)) return "scale must be positive and finite";
  if (const char* reason = lists_why_not(a)) return reason;
  if (!choose(a)) return "head_dim of K and V is none of those that were compiled (LACUNA_CUDA_DIMS)";
  if (a.batch > 0) {
    if (!a.q.data || !a.out.data) return "q or out is null";
    if (a.nk > 0 && (!a.k.data || !a.v.data)) return "k or v is null";
  }
  for (const Tensor4* t : {&a.q, &a.k, &a.v, &a.out}) {
    if (!aligned(t->data)) return "q, k, v and out must be 16-byte aligned";
    if (!strided(*t)) return "strides must be multiples of 8 elements, 0 or more";
  }
  const Launch x = launch_of(a);
  const std::int64_t keys = a.lists.counts ? std::int64_t{a.lists.most} * a.lists.cells : a.nk;
  if (x.items * (keys / 16 + 64) > INT32_MAX) return "more than 2^35 keys in all";
  if (x.error != cudaSuccess || x.blocks < 1) {
    cudaGetLastError();  // or the next launch would be blamed
    return "no code for this GPU was compiled, or its shared memory is too small for these head dimensions";
  }
  return nullptr;
}

std::size_t decode_work_bytes(const Decode& a) {
  if (decode_why_not(a)) return 0;
  const Launch x = launch_of(a);
  return static_cast<std::size_t>(ticket_bytes(x) + 4 * (sum_floats(x) + stat_floats(x)));
}

const char* decode(const Decode& a, void* stream) {
  if (a.batch == 0) return nullptr;
  Launch x = launch_of(a);
  if (x.error == cudaSuccess) {
    Call c = call_of(a, x);
    void* arguments[] = {&c};
    x.error = cudaLaunchKernel(x.form->kernel, dim3(static_cast<unsigned>(x.blocks)),
                               dim3(static_cast<unsigned>(x.form->threads)), arguments,
                               static_cast<std::size_t>(x.form->shared_bytes), static_cast<cudaStream_t>(stream));
  }
  return x.error == cudaSuccess ? nullptr : cudaGetErrorString(x.error);
}

}  // namespace lacuna::kernel::cuda
