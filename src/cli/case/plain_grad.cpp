// SPDX-License-Identifier: Apache-2.0
#include "cli/case/plain_grad.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/half.h"
#include "kv/element.h"

namespace lacuna::cli {
namespace {

float dot(const float* x, const float* y, int n) {
  float sum = 0;
  for (int d = 0; d < n; ++d) sum += x[d] * y[d];
  return sum;
}
void add(float* to, float factor, const float* y, int n) {
  for (int d = 0; d < n; ++d) to[d] += factor * y[d];
}

}  // namespace

void attend_grad_plain(const op::AttendGrad::Args& a, bool bf16, int kv_head) {
  const op::Attend::Args& f = a.forward;
  const auto rounded = [&](float x) { return bf16 ? bf16_to_float(float_to_bf16(x)) : x; };
  const auto read = [&](const void* base, std::int64_t at, int n, std::vector<float>& to) {
    to.resize(static_cast<std::size_t>(n));
    for (int d = 0; d < n; ++d) to[static_cast<std::size_t>(d)] = rounded(element(base, f.k_type, at + d));
  };
  std::vector<float> k, v, q(static_cast<std::size_t>(f.dk)), g(static_cast<std::size_t>(f.dv));
  for (std::int64_t c = 0; c < f.n_cells; ++c) {
    std::fill_n(a.d_k + kv_head * a.d_k_head + c * a.d_k_cell, f.dk, 0.0f);
    std::fill_n(a.d_v + kv_head * a.d_v_head + c * a.d_v_cell, f.dv, 0.0f);
  }
  const int group = f.hq / f.hkv;
  for (int h = kv_head * group; h < (kv_head + 1) * group; ++h)
    for (int i = 0; i < f.n_rows; ++i) {
      const float* g_raw = a.d_out + h * a.d_out_head + i * a.d_out_row;
      const float* q_raw = f.q + h * f.q_head + i * f.q_row;
      float* d_q = a.d_q + h * a.d_q_head + i * a.d_q_row;
      std::fill_n(d_q, f.dk, 0.0f);
      const float lse = f.lse[std::int64_t{h} * f.n_rows + i];
      if (lse == -INFINITY) continue;
      const float delta = dot(g_raw, f.out + h * f.out_head + i * f.out_row, f.dv);
      for (int d = 0; d < f.dk; ++d) q[static_cast<std::size_t>(d)] = rounded(q_raw[d]);
      for (int d = 0; d < f.dv; ++d) g[static_cast<std::size_t>(d)] = rounded(g_raw[d]);
      const int block = i / f.runs.block_q, in_block = i % f.runs.block_q;
      const std::int32_t* list = f.runs.list(h, block);
      for (std::int32_t r = list[0]; r < list[1]; ++r) {
        const TileRun& run = f.runs.runs[r];
        const std::uint32_t word =
            run.bits < 0 ? ~0u : f.runs.words[static_cast<std::ptrdiff_t>(run.bits) * f.runs.block_q + in_block];
        for (std::int32_t t = run.begin; t < run.end; ++t)
          for (int b = 0; b < kTileKeys; ++b) {
            if (!(word >> b & 1u)) continue;
            const std::int64_t c = f.runs.cell(t, b);
            read(f.k, kv_head * f.k_head + c * f.k_cell, f.dk, k);
            read(f.v, kv_head * f.v_head + c * f.v_cell, f.dv, v);
            float s = dot(q.data(), k.data(), f.dk) * f.scale, slope = 1;
            if (f.softcap > 0) {
              const float y = std::tanh(s / f.softcap);
              s = f.softcap * y;
              slope = 1 - y * y;
            }
            const float p = std::exp(s - lse);
            const float ds = rounded(p * (dot(g.data(), v.data(), f.dv) - delta) * slope) * f.scale;
            add(d_q, ds, k.data(), f.dk);
            add(a.d_k + kv_head * a.d_k_head + c * a.d_k_cell, ds, q.data(), f.dk);
            add(a.d_v + kv_head * a.d_v_head + c * a.d_v_cell, rounded(p), g.data(), f.dv);
          }
      }
    }
}

}  // namespace lacuna::cli
