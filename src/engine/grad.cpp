// SPDX-License-Identifier: Apache-2.0
// Session::attend_grad: the same plans as forward, lowered and seen from the keys, for op attend_grad.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "engine/session.h"

namespace lacuna {
namespace {

Status check_grad(const AttendGradCall& g) {
  const AttendCall& c = g.forward;
  LACUNA_CHECK(check_inputs(c));
  LACUNA_CHECK(check_floats("out", c.out, c.q.heads(), c.q.tokens(), c.v.dim()));
  if (!c.lse && c.q.tokens() > 0) return bad_argument("lse: none; gradients need the log-sums that forward wrote");
  LACUNA_CHECK(check_floats("d_out", g.d_out, c.q.heads(), c.q.tokens(), c.v.dim()));
  if (g.d_q) LACUNA_CHECK(check_written("d_q", g.d_q, c.q.heads(), c.q.tokens(), c.q.dim()));
  if (g.d_k) LACUNA_CHECK(check_written("d_k", g.d_k, c.k.heads(), c.k.tokens(), c.k.dim()));
  if (g.d_v) LACUNA_CHECK(check_written("d_v", g.d_v, c.v.heads(), c.v.tokens(), c.v.dim()));
  if (g.d_sinks && !c.sinks) return bad_argument("d_sinks: the call has no sinks");
  return {};
}

// f(row of t) for every head and token.
template <class F>
void each_row(const Tensor& t, const F& f) {
  for (std::int64_t h = 0; h < t.heads(); ++h)
    for (std::int64_t i = 0; i < t.tokens(); ++i) f(reinterpret_cast<float*>(t.row(0, h, i)), h * t.tokens() + i);
}

void clear(const Tensor& t) {
  if (t) each_row(t, [&](float* row, std::int64_t) { std::fill_n(row, t.dim(), 0.0f); });
}

void add(const float* from, const Tensor& t) {
  each_row(t, [&](float* row, std::int64_t at) {
    for (std::int64_t d = 0; d < t.dim(); ++d) row[d] += from[at * t.dim() + d];
  });
}

// Rows [first, first + n) of [heads][all], side by side.
const float* rows_of_heads(const float* from, std::int32_t heads, std::int64_t all, std::int32_t first, std::int32_t n, Buffer& to) {
  if (!from || n == all) return from;
  float* own = to.grow_as<float>(static_cast<std::size_t>(heads) * static_cast<std::size_t>(n));
  for (std::int32_t h = 0; h < heads; ++h)
    std::memcpy(own + std::int64_t{h} * n, from + h * all + first, sizeof(float) * static_cast<std::size_t>(n));
  return own;
}

}  // namespace

// Gradients of rows [first, first + forward.n_rows) of the call; those of K, V and sinks are added to what is there
// if `add_up`.
Status Session::Impl::grad_of_rows(const AttendGradCall& g, const op::Attend::Args& forward, const LoweredRuns& runs,
                                   std::int32_t first, bool add_up) {
  const std::int64_t all = g.forward.q.tokens();
  op::AttendGrad::Args a;
  a.forward = forward;
  a.forward.runs = runs.view();
  a.forward.lse = const_cast<float*>(rows_of_heads(g.forward.lse, forward.hq, all, first, forward.n_rows, grad_lse));
  invert(a.forward.runs, inverted);
  a.inverse = inverted.view;
  a.d_out = reinterpret_cast<const float*>(g.d_out.row(0, 0, first));
  a.d_out_head = g.d_out.stride[1];
  a.d_out_row = g.d_out.stride[2];
  a.d_lse = rows_of_heads(g.d_lse, forward.hq, all, first, forward.n_rows, grad_d_lse);
  if (g.d_q) {
    a.d_q = reinterpret_cast<float*>(g.d_q.row(0, 0, first));
    a.d_q_head = g.d_q.stride[1];
    a.d_q_row = g.d_q.stride[2];
  }
  const auto part_of = [&](const Tensor& t, Buffer& own, float*& to, std::int64_t& head, std::int64_t& cell) {
    if (!t) return;
    to = add_up ? own.grow_as<float>(static_cast<std::size_t>(t.heads() * t.tokens() * t.dim())) : static_cast<float*>(t.data);
    head = add_up ? t.tokens() * t.dim() : t.stride[1];
    cell = add_up ? t.dim() : t.stride[2];
  };
  part_of(g.d_k, grad_k, a.d_k, a.d_k_head, a.d_k_cell);
  part_of(g.d_v, grad_v, a.d_v, a.d_v_head, a.d_v_cell);
  std::vector<float> sinks(add_up && g.d_sinks ? static_cast<std::size_t>(forward.hq) : 0);
  a.d_sinks = sinks.empty() ? g.d_sinks : sinks.data();

  std::vector<Refusal> refusals;
  const auto* k = pick(kernel::attend_grad_list, a, have, parallel->workers(), {}, &refusals);
  if (!k) {
    if (const char* why = op::why_not_differentiable(a)) return unsupported(fmt::format("{} has no backward in this call: {}", spec, why));
    std::string text = fmt::format("{}: no kernel of op attend_grad takes this call", spec);
    for (const Refusal& r : refusals) text += fmt::format("; {}: {}", r.kernel, r.reason);
    return unsupported(text);
  }
  run_kernel(*k, a, *parallel, workspace);
  if (add_up && g.d_k) add(a.d_k, g.d_k);
  if (add_up && g.d_v) add(a.d_v, g.d_v);
  for (std::size_t h = 0; h < sinks.size(); ++h) g.d_sinks[h] += sinks[h];
  return {};
}

Status Session::Impl::attend_grad(const AttendGradCall& g) {
  LACUNA_CHECK(check_grad(g));
  const AttendCall& c = g.forward;
  if (c.q.tokens() == 0) {
    clear(g.d_k);
    clear(g.d_v);
    if (g.d_sinks) std::fill_n(g.d_sinks, c.q.heads(), 0.0f);
    return {};
  }
  scratch_phase = {};
  phase = &scratch_phase;
  side = nullptr;
  MaskEntry& mask = mask_entry(c);
  op::Attend::Args args = base_args(c, mask);
  const std::vector<Segment>* segments = &mask.visible.segments();
  if (c.plan) {
    auto of = take_plans(c, mask, args);
    if (!of.ok()) return of.error();
    segments = of.value();
  } else {
    LACUNA_CHECK(make_plans(c, mask, args));
  }
  const bool sparse = std::any_of(plans.begin(), plans.end(), [](const Plan& p) { return !is_dense(p); });
  if (c.plan_number && *c.plan_number != (sparse ? number_of(plans) : kDensePlan))
    return unsupported(fmt::format("{}: its plan is another one in backward than it was in forward; keep forward's own "
                                   "(Session::plan) and give it to both", spec));
  if (!sparse) return grad_of_rows(g, args, mask.dense, 0, false);

  const bool add_up = segments->size() > 1;
  if (add_up) {
    clear(g.d_k);
    clear(g.d_v);
    if (g.d_sinks) std::fill_n(g.d_sinks, args.hq, 0.0f);
  }
  for (std::size_t i = 0; i < segments->size(); ++i) {
    const Segment& s = (*segments)[i];
    lower_plan(plans[i], mask.visible, s,
               {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(plans[i], kBlockQ), .gather = !args.bias}, lowered);
    op::Attend::Args rows = rows_of(args, s.row_begin, s.row_end);
    rows.pv_skip = pv_skip_of(plans[i]);
    LACUNA_CHECK(grad_of_rows(g, rows, lowered, s.row_begin, add_up));
  }
  return {};
}

}  // namespace lacuna
