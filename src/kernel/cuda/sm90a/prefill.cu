// SPDX-License-Identifier: Apache-2.0
// The host's side of the Hopper kernel: which form of it takes a call, the call in its terms, the launch.
#include "kernel/cuda/sm90a/prefill.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/sm90a/instance.cuh"
#include "kernel/cuda/sm90a/tensor_map.cuh"

namespace lacuna::kernel::cuda::sm90a {

#define LACUNA_SHAPE(dk, dv) Instances instances_##dk##_##dv();
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE

namespace {

// The form of the kernel for a call; null = its head dimensions are not there.
const Instance* find(const Prefill& a, int groups) {
  const Instance* best = nullptr;
  const auto look = [&](Instances all) {
    for (const Instance& i : all)
      if (i.dtype == a.dtype && i.dk == a.dk && i.dv == a.dv && i.groups <= groups &&
          (!best || i.groups > best->groups))
        best = &i;
  };
#define LACUNA_SHAPE(dk, dv) look(instances_##dk##_##dv());
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE
  return best;
}

int heads_per_list(const Prefill& a) { return a.hq / a.lists.heads; }

// Two heads' 64 rows make a tile of 128 where they share their keys and their list.
bool paired(const Prefill& a) {
  return a.lists.row_ptr && a.lists.block_q == 64 && a.hq / a.hkv % 2 == 0 && heads_per_list(a) % 2 == 0;
}
const Instance* choose(const Prefill& a) {
  if (!a.lists.row_ptr) return find(a, 3);
  return find(a, a.lists.block_q == 64 && !paired(a) ? 1 : 2);
}

bool aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }
bool strided(const Tensor4& t, int batch, int heads, int rows) {
  const auto fits = [](std::int64_t stride, int n) {
    return n <= 1 || (stride > 0 && stride % 8 == 0 && stride < std::int64_t{1} << 39);
  };
  return fits(t.batch, batch) && fits(t.head, heads) && fits(t.row, rows);
}

// Nothing to read: no keys, so that K and V may be null.
bool keyless(const Prefill& a) { return a.nk == 0; }

// KV heads whose keys and values fit in two thirds of the L2 cache; at least one.
std::int64_t heads_in_cache(const Prefill& a, int cache_bytes) {
  const std::int64_t bytes = std::int64_t{std::max(a.nk, 1)} * (a.dk + a.dv) * 2;
  return std::max<std::int64_t>(1, std::int64_t{cache_bytes} * 2 / 3 / bytes);
}

Call call_of(const Prefill& a, const Instance& form, int cache_bytes) {
  Call c{};
  c.lse = a.lse;
  c.hq = a.hq;
  c.group = a.hq / a.hkv;
  c.nq = a.nq;
  c.nk = a.nk;
  c.offset = a.causal ? a.nk - a.nq : a.nk;
  c.scale_log2 = a.scale * 1.44269504f;
  c.paired = paired(a);
  const int rows = c.paired ? kBox : form.rows;
  c.row_tiles = (a.nq + rows - 1) / rows;
  c.head_tiles = a.batch * a.hq / (c.paired ? form.groups : 1);
  c.tiles = c.row_tiles * c.head_tiles;
  c.section = static_cast<std::int32_t>(
      std::min<std::int64_t>(c.head_tiles, heads_in_cache(a, cache_bytes) * c.group / (c.paired ? form.groups : 1)));
  c.row_ptr = keyless(a) ? nullptr : a.lists.row_ptr;
  c.columns = a.lists.columns;
  c.bits = a.lists.bits;
  c.words = reinterpret_cast<const uint2*>(a.lists.words);
  c.block_q = a.lists.block_q;
  c.boxes_per_block = a.lists.block_k / kBox;
  c.heads_per_list = heads_per_list(a);
  c.lists_per_batch = a.lists.batches == 1 ? 0 : a.lists.heads;
  c.work = a.work;
  return c;
}

bool encode_all(Call& c, const Prefill& a) {
  return encode(c.q, a.q, a.dtype, a.batch, a.hq, a.nq, a.dk) &&
         encode(c.out, a.out, a.dtype, a.batch, a.hq, a.nq, a.dv) &&
         (keyless(a) || (encode(c.k, a.k, a.dtype, a.batch, a.hkv, a.nk, a.dk) &&
                         encode(c.v, a.v, a.dtype, a.batch, a.hkv, a.nk, a.dv)));
}

}  // namespace

const char* prefill_why_not(const Prefill& a) {
  if (capability() != 90) return "the GPU is not of compute capability 9.0 (H100, H200)";
  if (!find(a, 3)) return "head_dim of K and V is none of those that were compiled (LACUNA_CUDA_DIMS)";
  for (const Tensor4* t : {&a.q, &a.k, &a.v, &a.out})
    if (!aligned(t->data)) return "q, k, v and out must be 16-byte aligned";
  if (!strided(a.q, a.batch, a.hq, a.nq) || !strided(a.out, a.batch, a.hq, a.nq) ||
      !strided(a.k, a.batch, a.hkv, a.nk) || !strided(a.v, a.batch, a.hkv, a.nk))
    return "strides must be positive multiples of 8 elements, below 2^39";
  return nullptr;
}

const char* prefill(const Prefill& a, void* stream) {
  const Instance& form = *choose(a);
  int device = 0, processors = 0, cache_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device);
  Call c = call_of(a, form, cache_bytes);
  if (!encode_all(c, a)) return "the driver refuses the tensors' shape or strides, or is older than CUDA 12.0";
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(form.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, form.shared_bytes);
  if (error == cudaSuccess) {
    const auto blocks = static_cast<unsigned>(std::min(c.tiles, processors * form.blocks_per_sm));
    void* arguments[] = {&c};
    error = cudaLaunchKernel(form.kernel, dim3(blocks), dim3(static_cast<unsigned>(form.threads)), arguments,
                             static_cast<std::size_t>(form.shared_bytes), static_cast<cudaStream_t>(stream));
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace lacuna::kernel::cuda::sm90a
