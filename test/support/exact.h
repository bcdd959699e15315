// SPDX-License-Identifier: Apache-2.0
// Attention by the textbook over the pairs that a test names: in double precision, and in f32 with operands
// and probabilities rounded, whose error is the measure of a kernel's (docs/laws.md, law bound).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/half.h"
#include "kv/element.h"
#include "lacuna/lacuna.h"
#include "op/attend.h"

namespace lacuna::test {

// What the textbook needs of a call. Nothing of how the engine reads a mask or chooses a kernel is used.
inline op::Attend::Args textbook_args(const AttendCall& c) {
  op::Attend::Args a;
  a.hq = static_cast<std::int32_t>(c.q.heads()), a.hkv = static_cast<std::int32_t>(c.k.heads());
  a.dk = static_cast<std::int32_t>(c.q.dim()), a.dv = static_cast<std::int32_t>(c.v.dim());
  a.n_rows = static_cast<std::int32_t>(c.q.tokens()), a.n_cells = c.k.tokens();
  a.q = static_cast<const float*>(c.q.data), a.q_head = c.q.stride[1], a.q_row = c.q.stride[2];
  a.k = c.k.data, a.k_head = c.k.stride[1], a.k_cell = c.k.stride[2];
  a.v = c.v.data, a.v_head = c.v.stride[1], a.v_cell = c.v.stride[2];
  a.k_type = c.k.dtype;
  a.v_type = c.v.dtype;
  a.scale = c.scale != 0 ? c.scale : 1.0f / std::sqrt(static_cast<float>(a.dk));
  a.softcap = c.softcap, a.sinks = c.sinks;
  a.bias = c.mask.data, a.bias_row = c.mask.row_stride, a.slope = c.slopes;
  return a;
}

// out [hq][rows][dv], lse [hq][rows].
struct Textbook {
  std::vector<double> out, lse;
};

// The f32 plain arithmetic is free in what a kernel is: q is rounded times `factor`, probabilities relative
// to the row's maximum + `shift`.
template <class Real, class Attends, class Round>
Textbook textbook(const op::Attend::Args& a, const Attends& attends, const Round& round, Real factor = 1,
                  Real shift = 0) {
  const auto n = static_cast<std::size_t>(a.n_cells),
             rows = static_cast<std::size_t>(a.hq) * static_cast<std::size_t>(a.n_rows);
  Textbook t{std::vector<double>(rows * static_cast<std::size_t>(a.dv), 0.0), std::vector<double>(rows, -INFINITY)};
  const auto floats = [&](const void* base, Dtype type, std::int64_t head, std::int64_t cell, int dim) {
    std::vector<float> all;
    for (int h = 0; h < a.hkv; ++h)
      for (std::int64_t c = 0; c < a.n_cells; ++c)
        for (int d = 0; d < dim; ++d) all.push_back(element(base, type, h * head + c * cell + d));
    return all;
  };
  std::vector<float> k = floats(a.k, a.k_type, a.k_head, a.k_cell, a.dk), v = floats(a.v, a.v_type, a.v_head, a.v_cell, a.dv);
  for (auto* x : {&k, &v})
    for (float& e : *x) e = static_cast<float>(round(static_cast<Real>(e)));
  std::vector<Real> score(n), q(static_cast<std::size_t>(a.dk)), acc(static_cast<std::size_t>(a.dv));
  std::vector<std::size_t> cells;
  for (int h = 0; h < a.hq; ++h)
    for (int i = 0; i < a.n_rows; ++i) {
      const auto kv = static_cast<std::size_t>(h / (a.hq / a.hkv)),
                 row = static_cast<std::size_t>(h) * a.n_rows + static_cast<std::size_t>(i);
      for (int d = 0; d < a.dk; ++d)
        q[static_cast<std::size_t>(d)] = round(static_cast<Real>(a.q[h * a.q_head + i * a.q_row + d]) * factor);
      cells.clear();
      Real m = -INFINITY, l = 0;
      for (std::size_t c = 0; c < n; ++c) {
        if (!attends(h, i, static_cast<std::int64_t>(c))) continue;
        const float* key = k.data() + (kv * n + c) * static_cast<std::size_t>(a.dk);
        Real x = 0;
        for (int d = 0; d < a.dk; ++d) x += q[static_cast<std::size_t>(d)] * static_cast<Real>(key[d]);
        x *= static_cast<Real>(a.scale) / factor;
        if (a.softcap > 0) x = static_cast<Real>(a.softcap) * std::tanh(x / static_cast<Real>(a.softcap));
        if (a.bias)
          x += static_cast<Real>(a.slope ? a.slope[h] : 1.0f) *
               static_cast<Real>(half_to_float(a.bias[i * a.bias_row + static_cast<std::int64_t>(c)]));
        score[c] = x;
        m = std::max(m, x);
        cells.push_back(c);
      }
      m += shift;
      std::fill(acc.begin(), acc.end(), Real{0});
      for (const std::size_t c : cells) {
        const Real p = std::exp(score[c] - m);
        l += p;
        const Real rounded = round(p);
        const float* value = v.data() + (kv * n + c) * static_cast<std::size_t>(a.dv);
        for (int d = 0; d < a.dv; ++d) acc[static_cast<std::size_t>(d)] += rounded * static_cast<Real>(value[d]);
      }
      if (!(l > 0)) continue;
      if (a.sinks) l += std::exp(static_cast<Real>(a.sinks[h]) - m);
      for (int d = 0; d < a.dv; ++d)
        t.out[row * static_cast<std::size_t>(a.dv) + static_cast<std::size_t>(d)] =
            static_cast<double>(acc[static_cast<std::size_t>(d)] / l);
      t.lse[row] = static_cast<double>(m + std::log(l));
    }
  return t;
}

template <class Attends>
Textbook exact_attention(const op::Attend::Args& a, const Attends& attends) {
  return textbook<double>(a, attends, [](double x) { return x; });
}

struct Distance {
  double out = 0, lse = 0;
  bool same_shape = true;  // NaN and infinities agree
};

// `out` [hq][rows][dv] side by side, or as the arguments lay it.
template <class X, class Y>
double furthest(const std::vector<X>& x, const std::vector<Y>& y, bool& same_shape) {
  double worst = 0;
  same_shape = same_shape && x.size() == y.size();
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    const auto a = static_cast<double>(x[i]), b = static_cast<double>(y[i]);
    if (a == b) continue;
    if (!std::isfinite(a) || !std::isfinite(b))
      same_shape = false;
    else
      worst = std::max(worst, std::abs(a - b));
  }
  return worst;
}

template <class X>
Distance distance(const std::vector<X>& out, const std::vector<X>& lse, const Textbook& want) {
  Distance d;
  d.out = furthest(out, want.out, d.same_shape);
  d.lse = furthest(lse, want.lse, d.same_shape);
  return d;
}

// What FlashAttention's rule allows: twice (with a soft-cap three times) the error of plain arithmetic in the
// number types, the worst of four ways to place the roundings, and a tiny rest.
template <class Attends>
Distance allowed_distance(const op::Attend::Args& a, const Attends& attends, bool bf16, const Textbook& want) {
  Distance most;
  const float base2 = a.scale * 1.442695f;
  for (const auto& [factor, shift] : {std::pair{1.0f, 0.0f}, {base2, 0.3f}, {1.3f, 0.55f}, {0.8f, 0.85f}}) {
    const Textbook t = bf16 ? textbook<float>(
                                  a, attends, [](float x) { return bf16_to_float(float_to_bf16(x)); }, factor, shift)
                            : textbook<float>(
                                  a, attends, [](float x) { return x; }, factor, shift);
    const Distance one = distance(t.out, t.lse, want);
    most.out = std::max(most.out, one.out);
    most.lse = std::max(most.lse, one.lse);
  }
  const double tiny = bf16 ? 1e-3 : 4e-6, times = a.softcap > 0 ? 3 : 2;
  most.out = times * most.out + tiny;
  most.lse = times * most.lse + tiny;
  return most;
}

}  // namespace lacuna::test
