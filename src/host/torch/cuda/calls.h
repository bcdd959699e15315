// SPDX-License-Identifier: Apache-2.0
// PyTorch's tensors as the CUDA kernels' calls. Shapes, devices and the channels' stride are checked here; what is left is for
// the kernels' why_not functions. Throws std::invalid_argument.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "host/torch/tensors.h"
#include "kernel/cuda/decode.h"
#include "kernel/cuda/prefill_grad.h"

namespace lacuna::torch_host {

namespace kernels = lacuna::kernel::cuda;

// Of a list call; what is absent of a dense one.
struct ListTensors {
  std::optional<Tensor> row_ptr, columns, bits, words;  // [batches, lists, row blocks + 1], [n], [n], [masks, block_q, block_k / 32]
  std::int64_t block_q = 128, block_k = 128;
};

inline void check_device(const char* name, const Tensor& t, const Tensor& q) {
  if (!t.is_cuda() || t.get_device_index() != q.get_device_index())
    throw std::invalid_argument(std::string(name) + ": need a CUDA tensor of q's device");
}

inline std::int32_t count(const char* name, std::int64_t n) {
  if (n < 0 || n > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument(std::string(name) + ": got " + std::to_string(n) + ", need 0 to 2^31 - 1");
  return static_cast<std::int32_t>(n);
}

inline kernels::Tensor4 tensor4(const char* name, const Tensor& t, const Tensor& q) {
  check_device(name, t, q);
  if (t.scalar_type() != q.scalar_type()) throw std::invalid_argument(std::string(name) + ": need q's type");
  if (t.size(3) > 1 && t.stride(3) != 1) throw std::invalid_argument(std::string(name) + ": need channels side by side");
  const auto stride = [&](int i) { return t.size(i) > 1 ? t.stride(i) : 0; };  // of a single one: anything
  return {t.data_ptr(), stride(0), stride(1), stride(2)};
}

// A contiguous tensor of `type` on q's device, of at least `least` numbers.
template <class T>
T* numbers(const char* name, const Tensor& t, ScalarType type, const Tensor& q, std::int64_t least = 0) {
  check_device(name, t, q);
  if (t.scalar_type() != type || !t.is_contiguous() || t.numel() < least)
    throw std::invalid_argument(std::string(name) + ": need a contiguous tensor of its type, of " + std::to_string(least) + " numbers or more");
  return static_cast<T*>(t.data_ptr());
}

// What a prefill and a decode have in common.
template <class Call>
Call call_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, bool causal, double scale) {
  check_shape("q", q, {-1, -1, -1, -1});
  check_shape("k", k, {q.size(0), -1, -1, q.size(3)});
  check_shape("v", v, {q.size(0), k.size(1), k.size(2), -1});
  check_shape("out", out, {q.size(0), q.size(1), q.size(2), v.size(3)});
  Call a;
  a.dtype = dtype_of("q", q);
  a.batch = count("batch", q.size(0)), a.hq = count("heads", q.size(1)), a.hkv = count("KV heads", k.size(1));
  a.nq = count("rows", q.size(2)), a.nk = count("keys", k.size(2));
  a.dk = count("head_dim", q.size(3)), a.dv = count("head_dim", v.size(3));
  a.q = tensor4("q", q, q), a.k = tensor4("k", k, q), a.v = tensor4("v", v, q), a.out = tensor4("out", out, q);
  a.scale = static_cast<float>(scale);
  a.causal = causal;
  return a;
}

inline float* lse_of(const Tensor& lse, const Tensor& q) {
  check_shape("lse", lse, {q.size(0), q.size(1), q.size(2)});
  return numbers<float>("lse", lse, ScalarType::Float, q);
}

inline kernels::BlockLists lists_of(const ListTensors& from, const Tensor& q) {
  kernels::BlockLists l;
  if (!from.row_ptr) return l;
  if (!from.columns) throw std::invalid_argument("columns: lists have none");
  l.block_q = count("block_q", from.block_q), l.block_k = count("block_k", from.block_k);
  if (l.block_q < 1 || l.block_k < 1) throw std::invalid_argument("block_q, block_k: need 64 or 128");
  check_shape("row_ptr", *from.row_ptr, {-1, -1, (q.size(2) + l.block_q - 1) / l.block_q + 1});
  l.batches = count("lists", from.row_ptr->size(0)), l.heads = count("lists", from.row_ptr->size(1));
  l.row_ptr = numbers<std::int32_t>("row_ptr", *from.row_ptr, ScalarType::Int, q);
  l.columns = numbers<std::int32_t>("columns", *from.columns, ScalarType::Int, q);
  l.n_entries = count("columns", from.columns->numel());
  if (from.bits && from.words) {
    check_shape("words", *from.words, {-1, l.block_q, l.block_k / 32});
    l.bits = numbers<std::int32_t>("bits", *from.bits, ScalarType::Int, q, l.n_entries);
    l.words = numbers<std::uint32_t>("words", *from.words, ScalarType::Int, q);
    l.n_bits = count("words", from.words->size(0));
  }
  return l;
}

inline kernels::Prefill prefill_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, const Tensor& work,
                                   const ListTensors& lists, bool causal, double scale) {
  auto a = call_of<kernels::Prefill>(q, k, v, out, causal, scale);
  a.lse = lse_of(lse, q);
  a.lists = lists_of(lists, q);
  a.work = numbers<std::uint32_t>("work", work, ScalarType::Int, q, 2);
  return a;
}

// Without `work` and `lse`.
inline kernels::Decode decode_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const std::optional<Tensor>& counts,
                                 const std::optional<Tensor>& pages, std::int64_t cells, bool causal, double scale) {
  auto a = call_of<kernels::Decode>(q, k, v, out, causal, scale);
  if (!counts || !pages) return a;
  check_shape("counts", *counts, {q.size(0), -1});
  check_shape("pages", *pages, {q.size(0), counts->size(1), -1});
  a.lists.cells = count("cells", cells);
  a.lists.heads = count("lists", counts->size(1)), a.lists.most = count("pages", pages->size(2));
  a.lists.counts = numbers<std::int32_t>("counts", *counts, ScalarType::Int, q);
  a.lists.pages = numbers<std::int32_t>("pages", *pages, ScalarType::Int, q);
  return a;
}

}  // namespace lacuna::torch_host
