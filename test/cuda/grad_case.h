// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/prefill_grad.h on the host: forward's case, the gradients by its results, the
// reference of op attend_grad, and the bound: twice the error of plain f32 arithmetic that rounds p and ds to 16 bits.
#pragma once

#include <array>

#include "op/attend_grad_ref.h"
#include "prefill_case.h"

namespace lacuna::test {

class GradCase {
 public:
  // dq [batch][hq][nq][dk], dk and dv [batch][hkv][nk][.], without gaps.
  using Grads = std::array<std::vector<float>, 3>;

  GradCase(const PrefillSpec& spec, bool with_d_lse) : c(spec), s(c.s) {
    const HostResult forward = c.reference();
    lse = forward.lse;
    out.shape(s.batch, s.hq, s.nq, s.dv, s.token_major);
    g.shape(s.batch, s.hq, s.nq, s.dv, !s.token_major);
    c.fill(g);
    Rng rng(spec.seed + 17);
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h)
        for (int i = 0; i < s.nq; ++i) {
          for (int d = 0; d < s.dv; ++d)
            out.data[out.at(b, h, i, d)] = c.store(forward.out[c.place(b, h, i) * s.dv + d]);
          if (with_d_lse) d_lse.push_back(static_cast<float>(rng.normal()));
        }
  }

  Grads reference() const {
    Grads r = fresh();
    const int group = s.hq / s.hkv;
    for (int b = 0; b < s.batch; ++b)
      for (int kv = 0; kv < s.hkv; ++kv) {
        HostRuns runs;
        c.lower(b, kv * group, group, runs);
        std::array<std::vector<float>, 3> x;  // q, out, G of the group's heads
        for (int h = kv * group; h < (kv + 1) * group; ++h) {
          const HostTensor* from[3] = {&c.q, &out, &g};
          for (int t = 0; t < 3; ++t) {
            const auto more = c.numbers(*from[t], b, h);
            x[t].insert(x[t].end(), more.begin(), more.end());
          }
        }
        op::AttendGrad::Args a;
        op::Attend::Args& f = a.forward;
        f.hq = group, f.hkv = 1, f.dk = s.dk, f.dv = s.dv, f.n_rows = s.nq, f.n_cells = s.nk;
        f.q = x[0].data(), f.q_row = s.dk, f.q_head = std::int64_t{s.nq} * s.dk;
        f.out = x[1].data(), f.out_row = s.dv, f.out_head = std::int64_t{s.nq} * s.dv;
        f.k = c.k.data.data() + c.k.at(b, kv, 0, 0), f.k_cell = c.k.row;
        f.v = c.v.data.data() + c.v.at(b, kv, 0, 0), f.v_cell = c.v.row;
        f.k_type = f.v_type = s.dtype;
        f.runs = runs.view;
        f.scale = c.scale();
        const std::size_t rows = c.place(b, kv * group, 0), keys = (static_cast<std::size_t>(b) * s.hkv + kv) * s.nk;
        f.lse = const_cast<float*>(lse.data()) + rows;
        if (!d_lse.empty()) a.d_lse = d_lse.data() + rows;
        a.d_out = x[2].data(), a.d_out_row = s.dv, a.d_out_head = f.out_head;
        a.d_q = r[0].data() + rows * s.dk, a.d_q_row = s.dk, a.d_q_head = f.q_head;
        a.d_k = r[1].data() + keys * s.dk, a.d_k_cell = s.dk;
        a.d_v = r[2].data() + keys * s.dv, a.d_v_cell = s.dv;
        op::attend_grad_ref(a, 0);
      }
    return r;
  }

  // In f32, with p, ds and the gradients rounded to 16 bits.
  Grads plain() const {
    Grads r = fresh();
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h) {
        const int kv = c.kv_head_of(h);
        const auto q = c.numbers(c.q, b, h), k = c.numbers(c.k, b, kv), v = c.numbers(c.v, b, kv),
                   o = c.numbers(out, b, h), d_o = c.numbers(g, b, h);
        const std::size_t keys = (static_cast<std::size_t>(b) * s.hkv + kv) * s.nk;
        for (int i = 0; i < s.nq; ++i) {
          const std::size_t at = c.place(b, h, i);
          const float rest = (d_lse.empty() ? 0.0f : d_lse[at]) - dot(&o[i * s.dv], &d_o[i * s.dv], s.dv);
          for (int j = 0; j < s.nk; ++j) {
            if (!c.sees(b, h, i, j)) continue;
            const float p = std::exp(c.scale() * dot(&q[i * s.dk], &k[j * s.dk], s.dk) - lse[at]);
            const float ds = rounded(p * (dot(&d_o[i * s.dv], &v[j * s.dv], s.dv) + rest));
            add(&r[0][at * s.dk], ds, &k[j * s.dk], s.dk);
            add(&r[1][(keys + j) * s.dk], ds, &q[i * s.dk], s.dk);
            add(&r[2][(keys + j) * s.dv], rounded(p), &d_o[i * s.dv], s.dv);
          }
        }
      }
    for (int t = 0; t < 3; ++t)
      for (float& x : r[t]) x = rounded(t == 2 ? x : x * c.scale());
    return r;
  }

  PrefillCase c;
  const PrefillSpec& s;
  HostTensor out, g;
  std::vector<float> lse, d_lse;

 private:
  Grads fresh() const {
    const std::size_t rows = static_cast<std::size_t>(s.batch) * s.hq * s.nq,
                      keys = static_cast<std::size_t>(s.batch) * s.hkv * s.nk;
    return {std::vector<float>(rows * s.dk), std::vector<float>(keys * s.dk), std::vector<float>(keys * s.dv)};
  }
  float rounded(float x) const { return c.number(c.store(x)); }
  static float dot(const float* x, const float* y, int n) {
    float sum = 0;
    for (int d = 0; d < n; ++d) sum += x[d] * y[d];
    return sum;
  }
  static void add(float* to, float factor, const float* from, int n) {
    for (int d = 0; d < n; ++d) to[d] += factor * from[d];
  }
};

}  // namespace lacuna::test
