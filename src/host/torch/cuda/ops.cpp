// SPDX-License-Identifier: Apache-2.0
// Operators of PyTorch's dispatcher that start the CUDA kernels on the current stream, by the stable interface of 2.9. A
// library of its own: one without CUDA never loads it. Scratch memory comes from lacuna/_cuda.py, which takes it from
// PyTorch's allocator; nothing here allocates or waits, so that a CUDA graph can hold all of it but _cuda_list_error.
#include <torch/csrc/stable/accelerator.h>

#include "host/torch/cuda/calls.h"
#include "host/torch/cuda/stream.h"

namespace lacuna::torch_host {
namespace {

using Maybe = std::optional<Tensor>;

// The tensor's device and stream, while a call uses them.
struct On {
  explicit On(const Tensor& q) : guard(q.get_device_index()), stream(current_stream(q.get_device_index())) {}
  torch::stable::accelerator::DeviceGuard guard;
  void* stream;
};

void refuse(const char* why) {
  if (why) throw std::runtime_error(std::string("lacuna: no CUDA kernel takes this call: ") + why);
}
void started(const char* error) {
  if (error) throw std::runtime_error(std::string("lacuna: CUDA: ") + error);
}

void prefill(Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor work, Maybe row_ptr, Maybe columns, Maybe bits, Maybe words,
             std::int64_t block_q, std::int64_t block_k, bool causal, double scale) {
  check_device("q", q, q);
  const On on(q);
  const auto a = prefill_of(q, k, v, out, lse, work, {row_ptr, columns, bits, words, block_q, block_k}, causal, scale);
  refuse(kernels::prefill_why_not(a));
  started(kernels::prefill(a, on.stream));
}

void list_error(Tensor q, Tensor row_ptr, Tensor columns, Maybe bits, Maybe words, std::int64_t block_q, std::int64_t block_k, std::int64_t keys,
                Tensor error) {
  check_device("q", q, q);
  const On on(q);
  kernels::Prefill a;
  a.batch = count("batch", q.size(0)), a.hq = count("heads", q.size(1)), a.nq = count("rows", q.size(2)), a.nk = count("keys", keys);
  a.lists = lists_of({row_ptr, columns, bits, words, block_q, block_k}, q);
  started(kernels::check_lists(a, numbers<kernels::ListError>("error", error, ScalarType::Int, q, 1), on.stream));
}

// Bytes of `work` that _cuda_decode needs; -1: it does not take the call.
std::int64_t decode_work(Tensor q, Tensor k, Tensor v, Tensor out, Maybe counts, Maybe pages, std::int64_t cells, bool causal, double scale) {
  check_device("q", q, q);
  const On on(q);
  const auto a = decode_of(q, k, v, out, counts, pages, cells, causal, scale);
  return kernels::decode_why_not(a) ? -1 : static_cast<std::int64_t>(kernels::decode_work_bytes(a));
}

void decode(Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor work, Maybe counts, Maybe pages, std::int64_t cells, bool causal,
            double scale) {
  check_device("q", q, q);
  const On on(q);
  auto a = decode_of(q, k, v, out, counts, pages, cells, causal, scale);
  refuse(kernels::decode_why_not(a));
  a.lse = lse_of(lse, q);
  a.work = numbers<std::uint8_t>("work", work, ScalarType::Byte, q, static_cast<std::int64_t>(kernels::decode_work_bytes(a)));
  started(kernels::decode(a, on.stream));
}

// The inverse of the lists in `scratch`, which has room for it: lacuna/_cuda.py counts the same.
kernels::InverseLists inverse_in(const Tensor& scratch, const kernels::Prefill& f, const Tensor& q) {
  const kernels::BlockLists& l = f.lists;
  const std::int64_t lists = std::int64_t{l.batches} * l.heads, blocks = (std::int64_t{f.nk} + l.block_k - 1) / l.block_k;
  const std::int64_t sizes[] = {lists * (blocks + 1), l.n_entries, l.bits ? l.n_entries : 0, lists * kernels::kInverseParts * blocks};
  auto* at = numbers<std::int32_t>("inverse", scratch, ScalarType::Int, q, sizes[0] + sizes[1] + sizes[2] + sizes[3]);
  kernels::InverseLists x;
  x.row_ptr = at, at += sizes[0];
  x.rows = at, at += sizes[1];
  x.bits = l.bits ? at : nullptr, at += sizes[2];
  x.counts = at;
  return x;
}

void grad(Tensor d_out, Maybe d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor work, Tensor rows, Maybe inverse, Maybe row_ptr,
          Maybe columns, Maybe bits, Maybe words, std::int64_t block_q, std::int64_t block_k, bool causal, double scale, Tensor d_q, Tensor d_k,
          Tensor d_v) {
  check_device("q", q, q);
  const On on(q);
  kernels::PrefillGrad g;
  g.forward = prefill_of(q, k, v, out, lse, work, {row_ptr, columns, bits, words, block_q, block_k}, causal, scale);
  const kernels::Prefill& f = g.forward;
  check_shape("d_out", d_out, {f.batch, f.hq, f.nq, f.dv});
  check_shape("d_q", d_q, {f.batch, f.hq, f.nq, f.dk});
  check_shape("d_k", d_k, {f.batch, f.hkv, f.nk, f.dk});
  check_shape("d_v", d_v, {f.batch, f.hkv, f.nk, f.dv});
  g.d_out = tensor4("d_out", d_out, q);
  if (d_lse) g.d_lse = lse_of(*d_lse, q);
  g.d_q = tensor4("d_q", d_q, q), g.d_k = tensor4("d_k", d_k, q), g.d_v = tensor4("d_v", d_v, q);
  g.rows = numbers<float>("rows", rows, ScalarType::Float, q, kernels::prefill_grad_floats(f));
  if (f.lists.row_ptr) {
    if (!inverse) throw std::invalid_argument("inverse: lists have no room for theirs");
    g.inverse = inverse_in(*inverse, f, q);
  }
  refuse(kernels::prefill_grad_why_not(g));
  if (f.lists.row_ptr) started(kernels::invert_lists(f, g.inverse, on.stream));
  started(kernels::prefill_grad(g, on.stream));
}

}  // namespace
}  // namespace lacuna::torch_host

// What is wrong with lists, in words: of the number that _cuda_list_error leaves.
extern "C" __attribute__((visibility("default"))) const char* lacuna_torch_words_of(std::uint32_t error) {
  return lacuna::kernel::cuda::words_of(static_cast<lacuna::kernel::cuda::ListError>(error));
}

STABLE_TORCH_LIBRARY_FRAGMENT(lacuna, m) {
  m.def(
      "_cuda_prefill(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor(c!) work, Tensor? row_ptr, Tensor? columns, "
      "Tensor? bits, Tensor? words, int block_q, int block_k, bool causal, float scale) -> ()");
  m.def(
      "_cuda_list_error(Tensor q, Tensor row_ptr, Tensor columns, Tensor? bits, Tensor? words, int block_q, int block_k, int keys, "
      "Tensor(a!) error) -> ()");
  m.def(
      "_cuda_decode_work(Tensor q, Tensor k, Tensor v, Tensor out, Tensor? counts, Tensor? pages, int cells, bool causal, float scale) -> int");
  m.def(
      "_cuda_decode(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor(c!) work, Tensor? counts, Tensor? pages, int cells, "
      "bool causal, float scale) -> ()");
  m.def(
      "_cuda_grad(Tensor d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor(a!) work, Tensor(b!) rows, "
      "Tensor(c!)? inverse, Tensor? row_ptr, Tensor? columns, Tensor? bits, Tensor? words, int block_q, int block_k, bool causal, float scale, "
      "Tensor(d!) d_q, Tensor(e!) d_k, Tensor(f!) d_v) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(lacuna, CUDA, m) {
  m.impl("_cuda_prefill", TORCH_BOX(&lacuna::torch_host::prefill));
  m.impl("_cuda_list_error", TORCH_BOX(&lacuna::torch_host::list_error));
  m.impl("_cuda_decode_work", TORCH_BOX(&lacuna::torch_host::decode_work));
  m.impl("_cuda_decode", TORCH_BOX(&lacuna::torch_host::decode));
  m.impl("_cuda_grad", TORCH_BOX(&lacuna::torch_host::grad));
}
