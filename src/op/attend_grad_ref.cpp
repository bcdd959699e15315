// SPDX-License-Identifier: Apache-2.0
#include "op/attend_grad_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kv/element.h"

namespace lacuna::op {
namespace {

using Doubles = std::vector<double>;

template <class X, class Y>
double dot(const X* x, const Y* y, int n) {
  double sum = 0;
  for (int d = 0; d < n; ++d) sum += static_cast<double>(x[d]) * y[d];
  return sum;
}

template <class Y>
void add(double* to, double factor, const Y* y, int n) {
  for (int d = 0; d < n; ++d) to[d] += factor * y[d];
}

void put(float* to, double factor, const double* from, int n) {
  for (int d = 0; d < n; ++d) to[d] = static_cast<float>(factor * from[d]);
}

// Calls visit(cell) for every cell a row sees.
template <class Visit>
void for_each_cell(const TileRuns& runs, int head, int row, const Visit& visit) {
  const int block = row / runs.block_q, in_block = row % runs.block_q;
  const std::int32_t* list = runs.list(head, block);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = runs.runs[r];
    const std::uint32_t word = run.bits < 0 ? ~0u : runs.words[std::int64_t{run.bits} * runs.block_q + in_block];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile)
      for (int b = 0; b < kTileKeys; ++b)
        if (word >> b & 1u) visit(runs.cell(tile, b));
  }
}

}  // namespace

const char* why_not_differentiable(const AttendGrad::Args& a) {
  if (is_quantised(a.forward.k_type) || is_quantised(a.forward.v_type)) return "quantised K or V: what was rounded has no gradient";
  if (a.forward.k_type != a.forward.v_type) return "K and V of different types";
  if (a.forward.bias) return "an additive mask: hide cells by the selection, and give a number per key as d_key_bias";
  if (a.forward.pv_skip)
    return "pv_skip: what forward left out depends on its kernel; give the tiles that stay as the selection";
  if (a.forward.resume.m)
    return "a resumed state: give the lse of all parts together, and differentiate each part with it";
  return nullptr;
}

void attend_grad_ref(const AttendGrad::Args& a, int kv_head) {
  const Attend::Args& f = a.forward;
  const int group = f.hq / f.hkv, dk = f.dk, dv = f.dv;
  const auto cells = static_cast<std::size_t>(f.n_cells);
  Doubles d_k(cells * static_cast<std::size_t>(dk)), d_v(cells * static_cast<std::size_t>(dv)), d_bias(cells);
  Doubles k(static_cast<std::size_t>(dk)), v(static_cast<std::size_t>(dv));

  for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
    double d_sink = 0;
    if (a.bias_heads == f.hq) std::fill(d_bias.begin(), d_bias.end(), 0.0);
    for (int i = 0; i < f.n_rows; ++i) {
      const std::int64_t at = static_cast<std::int64_t>(h) * f.n_rows + i;
      const float* q = f.q + h * f.q_head + i * f.q_row;
      const float* g = a.d_out + h * a.d_out_head + i * a.d_out_row;
      Doubles d_q(static_cast<std::size_t>(dk));
      const double lse = f.lse[at];
      if (lse != -INFINITY) {
        const double delta = a.delta ? a.delta[at] : dot(g, f.out + h * f.out_head + i * f.out_row, dv);
        const double rest = (a.d_lse ? a.d_lse[at] : 0.0) - delta;
        for_each_cell(f.runs, h, i, [&](std::int64_t c) {
          for (int d = 0; d < dk; ++d) k[d] = element(f.k, f.k_type, kv_head * f.k_head + c * f.k_cell + d);
          for (int d = 0; d < dv; ++d) v[d] = element(f.v, f.v_type, kv_head * f.v_head + c * f.v_cell + d);
          double s = f.scale * dot(q, k.data(), dk), slope = 1;
          if (f.softcap > 0) {
            const double t = std::tanh(s / f.softcap);
            s = f.softcap * t;
            slope = 1 - t * t;
          }
          const double p = std::exp(s - lse);
          const double e = p * (dot(g, v.data(), dv) + rest);
          const double ds = e * slope;
          add(d_q.data(), ds, k.data(), dk);
          add(d_k.data() + c * dk, ds, q, dk);
          add(d_v.data() + c * dv, p, g, dv);
          d_bias[static_cast<std::size_t>(c)] += e;
        });
        if (a.d_sinks && f.sinks) d_sink += std::exp(f.sinks[h] - lse) * rest;
      }
      if (a.d_q) put(a.d_q + h * a.d_q_head + i * a.d_q_row, f.scale, d_q.data(), dk);
    }
    if (a.d_sinks) a.d_sinks[h] = static_cast<float>(d_sink);
    if (a.d_key_bias && a.bias_heads == f.hq)
      put(a.d_key_bias + h * f.n_cells, 1, d_bias.data(), static_cast<int>(cells));
  }
  for (std::int64_t c = 0; c < f.n_cells; ++c) {
    if (a.d_k) put(a.d_k + kv_head * a.d_k_head + c * a.d_k_cell, f.scale, d_k.data() + c * dk, dk);
    if (a.d_v) put(a.d_v + kv_head * a.d_v_head + c * a.d_v_cell, 1, d_v.data() + c * dv, dv);
  }
  if (a.d_key_bias && a.bias_heads != f.hq)
    put(a.d_key_bias + kv_head * f.n_cells, 1, d_bias.data(), static_cast<int>(cells));
}

}  // namespace lacuna::op
