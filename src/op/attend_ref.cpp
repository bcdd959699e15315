// SPDX-License-Identifier: Apache-2.0
#include "op/attend_ref.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/half.h"
#include "kv/element.h"

namespace lacuna::op {
namespace {

// pv_skip for a group of this row alone. m: the largest score so far. A NaN is not <= anything.
bool negligible(const double* s, double m, double log2_units) {
  const double bound = m - log2_units * 0.69314718055994530942;
  return std::all_of(s, s + kTileKeys, [bound](double x) { return x <= bound; });
}

}  // namespace

double score_ref(const Attend::Args& a, int h, int row, std::int64_t cell) {
  const std::int64_t kv_head = h / (a.hq / a.hkv);
  const float* q = a.q + h * a.q_head + row * a.q_row;
  double s = 0;
  for (int d = 0; d < a.dk; ++d)
    s += static_cast<double>(q[d]) * element(a.k, a.k_type, kv_head * a.k_head + cell * a.k_cell + d);
  s *= a.scale;
  if (a.softcap > 0) s = a.softcap * std::tanh(s / a.softcap);
  if (a.bias)
    s += (a.slope ? a.slope[h] : 1.0) * half_to_float(a.bias[row * a.bias_row + cell]);
  return s;
}

void attend_row_ref(const Attend::Args& a, int h, int row) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const std::int64_t at = static_cast<std::int64_t>(h) * a.n_rows + row;
  const std::int64_t kv_head = h / (a.hq / a.hkv);
  double m = kNone, l = 0;
  std::vector<double> acc(a.dv, 0.0);
  if (a.resume.m) {
    m = a.resume.m[at];
    l = a.resume.l[at];
    for (int d = 0; d < a.dv; ++d) acc[d] = a.resume.acc[at * a.dv + d];
  }

  auto rescale_to = [&](double new_m) {
    const double shrink = m == kNone ? 0.0 : std::exp(m - new_m);
    l *= shrink;
    for (double& x : acc) x *= shrink;
    m = new_m;
  };
  auto visit = [&](std::int64_t cell, double s) {
    if (s == kNone) return;
    if (s > m) rescale_to(s);
    const double p = std::exp(s - m);
    l += p;
    for (int d = 0; d < a.dv; ++d)
      acc[d] += p * element(a.v, a.v_type, kv_head * a.v_head + cell * a.v_cell + d);
  };

  const int block = row / a.runs.block_q, in_block = row % a.runs.block_q;
  const std::int32_t* list = a.runs.list(h, block);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = a.runs.runs[r];
    const std::uint32_t word = run.bits < 0 ? ~0u : a.runs.words[std::int64_t{run.bits} * a.runs.block_q + in_block];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile) {
      double s[kTileKeys];
      for (int b = 0; b < kTileKeys; ++b) s[b] = word >> b & 1u ? score_ref(a, h, row, a.runs.cell(tile, b)) : kNone;
      const bool last = r + 1 == list[1] && tile + 1 == run.end;
      if (a.pv_skip && run.bits < 0 && !last && negligible(s, m, a.pv_skip[h])) continue;
      for (int b = 0; b < kTileKeys; ++b) visit(a.runs.cell(tile, b), s[b]);
    }
  }

  if (a.resume.m) {
    a.resume.m[at] = static_cast<float>(m);
    a.resume.l[at] = static_cast<float>(l);
    for (int d = 0; d < a.dv; ++d) a.resume.acc[at * a.dv + d] = static_cast<float>(acc[d]);
    if (!a.normalise) return;
  }
  if (a.sinks && l > 0) {  // a row without cells stays empty: the sink alone carries no value
    if (a.sinks[h] > m) rescale_to(a.sinks[h]);
    l += std::exp(a.sinks[h] - m);
  }
  float* out = a.out ? a.out + h * a.out_head + row * a.out_row : nullptr;
  if (out)
    for (int d = 0; d < a.dv; ++d) out[d] = l == 0 ? 0.0f : static_cast<float>(acc[d] / l);
  if (a.lse) a.lse[at] = l == 0 ? -std::numeric_limits<float>::infinity() : static_cast<float>(m + std::log(l));
}

}  // namespace lacuna::op
