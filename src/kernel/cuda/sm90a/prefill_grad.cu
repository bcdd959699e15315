// SPDX-License-Identifier: Apache-2.0
// The host's side of the Hopper backward: which form of the kernel takes a pass, the pass in its terms, the launches.
#include "kernel/cuda/sm90a/prefill_grad.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernel/cuda/capability.cuh"
#include "kernel/cuda/sm90a/grad_instance.cuh"
#include "kernel/cuda/sm90a/tensor_map.cuh"

namespace lacuna::kernel::cuda::sm90a {
namespace grad {

#define LACUNA_SHAPE(dk, dv) const std::vector<Instance>& instances_##dk##_##dv();
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE

namespace {

// The rows of a tile: as many as there are instances for, but no more than a block of lists has.
int rows_of_tile(const PrefillGrad& a, Side side) {
  const BlockLists& l = a.forward.lists;
  const int most = l.row_ptr && (side == Side::keys ? l.block_k : l.block_q) == 64 ? 64 : 128;
  return a.forward.dk > 192 ? 64 : most;
}

// The forms of the kernel that make a pass; none = the head dimensions are not there.
std::vector<const Instance*> find(const PrefillGrad& a, Side side) {
  const Prefill& f = a.forward;
  std::vector<const Instance*> found;
  const auto look = [&](const std::vector<Instance>& all) {
    for (const Instance& i : all)
      if (i.dtype == f.dtype && i.dk == f.dk && i.dv == f.dv && i.side == side && i.rows == rows_of_tile(a, side))
        found.push_back(&i);
  };
#define LACUNA_SHAPE(dk, dv) look(instances_##dk##_##dv());
#include <lacuna_shapes.inc>
#undef LACUNA_SHAPE
  return found;
}

bool encode_all(Call& c, const PrefillGrad& a, Side side) {
  const Prefill& f = a.forward;
  const auto queries = [&](CUtensorMap& map, const Tensor4& t, int d) {
    return encode(map, t, f.dtype, f.batch, f.hq, f.nq, d);
  };
  const auto keys = [&](CUtensorMap& map, const Tensor4& t, int d) {
    return encode(map, t, f.dtype, f.batch, f.hkv, f.nk, d);
  };
  const bool by_keys = side == Side::keys;
  return queries(by_keys ? c.walked_x : c.held_x, f.q, f.dk) &&
         queries(by_keys ? c.walked_y : c.held_y, a.d_out, f.dv) && keys(by_keys ? c.held_x : c.walked_x, f.k, f.dk) &&
         keys(by_keys ? c.held_y : c.walked_y, f.v, f.dv) &&
         (by_keys ? keys(c.d_x, a.d_k, f.dk) && keys(c.d_y, a.d_v, f.dv) : queries(c.d_x, a.d_q, f.dk));
}

// Held heads that are worked on together, by what two thirds of the L2 cache hold: of queries, as many as have their K
// and V there; of keys, for each q and G of one query head, as tiles walk the heads of a group one after the other.
// Without lists tiles of keys walk closely side by side, and the longest of all heads come first.
std::int64_t heads_of_section(const Prefill& f, bool by_keys, int cache_bytes) {
  const std::int64_t row_bytes = (f.dk + f.dv) * 2, fit = std::int64_t{cache_bytes} * 2 / 3;
  if (by_keys && !f.lists.row_ptr) return INT32_MAX;
  return std::max<std::int64_t>(1, by_keys ? fit / (f.nq * row_bytes) : fit / (f.nk * row_bytes) * (f.hq / f.hkv));
}

Call call_of(const PrefillGrad& a, const Instance& form, int cache_bytes) {
  const Prefill& f = a.forward;
  const BlockLists& l = f.lists;
  const bool by_keys = form.side == Side::keys;
  Call c{};
  c.rows = a.rows;
  c.hq = f.hq;
  c.group = f.hq / f.hkv;
  c.nq = f.nq;
  c.nk = f.nk;
  c.offset = f.causal ? f.nk - f.nq : f.nk;
  c.scale = f.scale;
  c.scale_log2 = f.scale * 1.44269504f;
  c.held_heads = by_keys ? f.hkv : f.hq;
  c.row_tiles = ((by_keys ? f.nk : f.nq) + form.rows - 1) / form.rows;
  c.head_tiles = f.batch * c.held_heads;
  c.tiles = c.row_tiles * c.head_tiles;
  c.section =
      static_cast<std::int32_t>(std::min<std::int64_t>(c.head_tiles, heads_of_section(f, by_keys, cache_bytes)));
  if (l.row_ptr) {
    c.row_ptr = by_keys ? a.inverse.row_ptr : l.row_ptr;
    c.names = by_keys ? a.inverse.rows : l.columns;
    c.bits = by_keys ? a.inverse.bits : l.bits;
    c.words = l.words;
  }
  c.block_q = l.block_q;
  c.block_k = l.block_k;
  c.block_held = by_keys ? l.block_k : l.block_q;
  c.boxes_per_block = (by_keys ? l.block_q : l.block_k) / kBox;
  c.heads_per_list = f.hq / l.heads;
  c.lists_per_batch = l.batches == 1 ? 0 : l.heads;
  c.work = f.work;
  return c;
}

const char* start(const PrefillGrad& a, const Instance& form, void* stream) {
  int device = 0, processors = 0, cache_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device);
  Call c = call_of(a, form, cache_bytes);
  if (!encode_all(c, a, form.side))
    return "the driver refuses the tensors' shape or strides, or is older than CUDA 12.0";
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(form.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, form.shared_bytes);
  if (error == cudaSuccess) {
    const auto blocks = static_cast<unsigned>(std::min((c.tiles + form.teams - 1) / form.teams, processors));
    void* arguments[] = {&c};
    error = cudaLaunchKernel(form.kernel, dim3(blocks), dim3(static_cast<unsigned>(form.threads)), arguments,
                             static_cast<std::size_t>(form.shared_bytes), static_cast<cudaStream_t>(stream));
  }
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

const char* start_pass(const PrefillGrad& a, Side side, void* stream) {
  for (const Instance* form : find(a, side))
    if (const char* error = start(a, *form, stream)) return error;
  return nullptr;
}

bool aligned(const Tensor4& t, int batch, int heads, int rows) {
  const auto fits = [](std::int64_t stride, int n) {
    return n <= 1 || (stride > 0 && stride % 8 == 0 && stride < std::int64_t{1} << 39);
  };
  return reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && fits(t.batch, batch) && fits(t.head, heads) &&
         fits(t.row, rows);
}

}  // namespace
}  // namespace grad

const char* prefill_grad_why_not(const PrefillGrad& a) {
  const Prefill& f = a.forward;
  if (capability() != 90) return "the GPU is not of compute capability 9.0 (H100, H200)";
  if (f.nq < 1 || f.nk < 1) return "there are no rows, or no keys";
  if (grad::find(a, grad::Side::queries).empty())
    return "head_dim of K and V is none of those that were compiled (LACUNA_CUDA_DIMS)";
  for (const Tensor4* t : {&f.q, &a.d_out, &a.d_q})
    if (!grad::aligned(*t, f.batch, f.hq, f.nq))
      return "q, d_out and d_q must be 16-byte aligned, with strides of positive multiples of 8 elements below 2^39";
  for (const Tensor4* t : {&f.k, &f.v, &a.d_k, &a.d_v})
    if (!grad::aligned(*t, f.batch, f.hkv, f.nk))
      return "k, v, d_k and d_v must be 16-byte aligned, with strides of positive multiples of 8 elements below 2^39";
  return nullptr;
}

const char* prefill_grad(const PrefillGrad& a, void* stream) {
  if (a.d_k.data)
    if (const char* error = grad::start_pass(a, grad::Side::keys, stream)) return error;
  return a.d_q.data ? grad::start_pass(a, grad::Side::queries, stream) : nullptr;
}

}  // namespace lacuna::kernel::cuda::sm90a
