// SPDX-License-Identifier: Apache-2.0
// Operators for PyTorch's dispatcher, by its stable interface: one binary serves all versions from 2.9 on. They allocate
// nothing and convert nothing: lacuna/_ops.py, which stands between them and users, does.
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <vector>

#include "host/torch/plans.h"
#include "host/torch/sessions.h"
#include "host/torch/tensors.h"

namespace lacuna::torch_host {
namespace {

constexpr std::uint16_t kHidden = 0xfc00;  // -infinity

// Errors of Lacuna as Python will have them: ValueError for what the caller gave, RuntimeError for what cannot be done.
void check(const Status& done) {
  if (done.ok()) return;
  const std::string& what = done.error().what;
  switch (done.error().code) {
    case ErrorCode::bad_argument:
    case ErrorCode::unknown_name: throw std::invalid_argument(what);
    default: throw std::runtime_error(what);
  }
}

// What the calls of all sequences of a batch share.
struct Batch {
  const Tensor &q, &k, &v;
  std::optional<Tensor> mask, sinks;
  std::vector<std::span<const std::int32_t>> plans;
  std::vector<std::uint16_t> all_visible;  // one row for all
  std::int64_t size, heads, kv_heads, rows, cells, dim, value_dim;
  AttendCall call;

  Batch(const Tensor& q_in, const Tensor& k_in, const Tensor& v_in, std::optional<Tensor> mask_in, std::optional<Tensor> sinks_in,
        const std::optional<Tensor>& plan, bool causal, double scale, double softcap, std::int64_t layer)
      : q(q_in), k(k_in), v(v_in), mask(std::move(mask_in)), sinks(std::move(sinks_in)) {
    check_shape("q", q, {-1, -1, -1, -1});
    check_shape("k", k, {q.size(0), -1, -1, q.size(3)});
    check_shape("v", v, {q.size(0), k.size(1), k.size(2), -1});
    size = q.size(0), heads = q.size(1), rows = q.size(2), dim = q.size(3);
    kv_heads = k.size(1), cells = k.size(2), value_dim = v.size(3);
    if (layer < 0 || layer > 1 << 20) throw std::invalid_argument("layer: got " + std::to_string(layer) + ", need 0 or more");
    if (mask) {
      check_shape("mask", *mask, {mask->size(0) == 1 ? 1 : size, rows, cells});
      if (mask->scalar_type() != ScalarType::Half || (cells > 1 && mask->stride(2) != 1))
        throw std::invalid_argument("mask: need float16, the cells of a row side by side");
      if (rows > 1 && mask->stride(1) < cells) throw std::invalid_argument("mask: rows that overlap");
    } else if (!causal) {
      all_visible.assign(static_cast<std::size_t>(cells), 0);
    }
    if (sinks) {
      check_shape("sinks", *sinks, {heads});
      if (sinks->scalar_type() != ScalarType::Float || (heads > 1 && sinks->stride(0) != 1))
        throw std::invalid_argument("sinks: need a contiguous float32 tensor");
      call.sinks = static_cast<const float*>(sinks->data_ptr());
    }
    if (plan) plans = split_plan(*plan, size);
    call.layer = static_cast<int>(layer);
    call.scale = static_cast<float>(scale);
    call.softcap = static_cast<float>(softcap);
    if (call.scale == 0) call.scale = kNearZero;
  }

  // The call of sequence b, without out.
  const AttendCall& of(std::int64_t b) {
    call.q = sequence("q", q, b);
    call.k = sequence("k", k, b);
    call.v = sequence("v", v, b);
    if (mask) {
      const auto* first = static_cast<const std::uint16_t*>(mask->data_ptr());
      call.mask = {first + (mask->size(0) == 1 ? 0 : b * mask->stride(0)), rows > 1 ? mask->stride(1) : cells, nullptr, nullptr};
    } else if (!all_visible.empty()) {
      call.mask = {all_visible.data(), 0, nullptr, nullptr};
    }
    if (!plans.empty()) {
      call.plan = plans[static_cast<std::size_t>(b)].data();
      call.plan_words = static_cast<std::int64_t>(plans[static_cast<std::size_t>(b)].size());
    }
    return call;
  }

 private:
  static constexpr float kNearZero = 1e-30f;  // a scale of 0 would mean the default
};

void check_floats(const char* name, const Tensor& t, std::initializer_list<std::int64_t> shape) {
  check_shape(name, t, shape);
  if (t.scalar_type() != ScalarType::Float || !t.is_contiguous())
    throw std::invalid_argument(std::string(name) + ": need a contiguous float32 tensor");
}

void attend(Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor number, std::optional<Tensor> mask, std::optional<Tensor> sinks,
            std::optional<Tensor> plan, std::int64_t session, bool causal, double scale, double softcap, std::int64_t layer) {
  Batch batch(q, k, v, std::move(mask), std::move(sinks), plan, causal, scale, softcap, layer);
  check_floats("out", out, {batch.size, batch.heads, batch.rows, batch.value_dim});
  check_floats("lse", lse, {batch.size, batch.heads, batch.rows});
  check_shape("number", number, {batch.size});
  if (number.scalar_type() != ScalarType::Long) throw std::invalid_argument("number: need int64");
  const InUse in_use(session);
  for (std::int64_t b = 0; b < batch.size; ++b) {
    AttendCall call = batch.of(b);
    call.out = sequence("out", out, b);
    call.lse = row<float>(lse, b);
    call.plan_number = row<std::uint64_t>(number, b);
    check(in_use->attend(call));
  }
}

void attend_grad(Tensor d_out, std::optional<Tensor> d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, std::optional<Tensor> number,
                 std::optional<Tensor> mask, std::optional<Tensor> sinks, std::optional<Tensor> plan, std::int64_t session, bool causal,
                 double scale, double softcap, std::int64_t layer, Tensor d_q, Tensor d_k, Tensor d_v, std::optional<Tensor> d_sinks) {
  Batch batch(q, k, v, std::move(mask), std::move(sinks), plan, causal, scale, softcap, layer);
  const std::int64_t size = batch.size, heads = batch.heads, rows = batch.rows;
  check_shape("d_out", d_out, {size, heads, rows, batch.value_dim});
  check_floats("out", out, {size, heads, rows, batch.value_dim});
  check_floats("lse", lse, {size, heads, rows});
  if (d_lse) check_floats("d_lse", *d_lse, {size, heads, rows});
  if (number) check_shape("number", *number, {size});
  check_floats("d_q", d_q, {size, heads, rows, batch.dim});
  check_floats("d_k", d_k, {size, batch.kv_heads, batch.cells, batch.dim});
  check_floats("d_v", d_v, {size, batch.kv_heads, batch.cells, batch.value_dim});
  if (d_sinks) check_floats("d_sinks", *d_sinks, {size, heads});
  const InUse in_use(session);
  for (std::int64_t b = 0; b < size; ++b) {
    AttendGradCall g;
    g.forward = batch.of(b);
    g.forward.out = sequence("out", out, b);
    g.forward.lse = row<float>(lse, b);
    if (number) g.forward.plan_number = row<std::uint64_t>(*number, b);
    g.d_out = sequence("d_out", d_out, b);
    if (d_lse) g.d_lse = row<float>(*d_lse, b);
    g.d_q = sequence("d_q", d_q, b);
    g.d_k = sequence("d_k", d_k, b);
    g.d_v = sequence("d_v", d_v, b);
    if (d_sinks) g.d_sinks = row<float>(*d_sinks, b);
    check(in_use->attend_grad(g));
  }
}

Tensor plan(Tensor q, Tensor k, Tensor v, std::optional<Tensor> mask, std::int64_t session, bool causal, double scale, double softcap,
            std::int64_t layer) {
  Batch batch(q, k, v, std::move(mask), std::nullopt, std::nullopt, causal, scale, softcap, layer);
  std::vector<std::int32_t> words;
  {
    const InUse in_use(session);
    for (std::int64_t b = 0; b < batch.size; ++b) {
      const auto part = in_use->plan(batch.of(b));
      if (!part.ok()) check(part.error());
      words.insert(words.end(), part.value().begin(), part.value().end());
    }
  }
  const auto n = static_cast<std::int64_t>(words.size());
  Tensor out = torch::stable::new_empty(q, {&n, 1}, ScalarType::Int);
  std::copy(words.begin(), words.end(), static_cast<std::int32_t*>(out.data_ptr()));
  return out;
}

}  // namespace
}  // namespace lacuna::torch_host

STABLE_TORCH_LIBRARY_FRAGMENT(lacuna, m) {
  m.def(
      "_attend(Tensor q, Tensor k, Tensor v, Tensor(a!) out, Tensor(b!) lse, Tensor(c!) number, Tensor? mask, Tensor? sinks, "
      "Tensor? plan, int session, bool causal, float scale, float softcap, int layer) -> ()");
  m.def(
      "_attend_grad(Tensor d_out, Tensor? d_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor? number, Tensor? mask, "
      "Tensor? sinks, Tensor? plan, int session, bool causal, float scale, float softcap, int layer, Tensor(a!) d_q, Tensor(b!) d_k, "
      "Tensor(c!) d_v, Tensor(d!)? d_sinks) -> ()");
  m.def(
      "_plan(Tensor q, Tensor k, Tensor v, Tensor? mask, int session, bool causal, float scale, float softcap, int layer) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lacuna, CPU, m) {
  m.impl("_attend", TORCH_BOX(&lacuna::torch_host::attend));
  m.impl("_attend_grad", TORCH_BOX(&lacuna::torch_host::attend_grad));
  m.impl("_plan", TORCH_BOX(&lacuna::torch_host::plan));
}
