// SPDX-License-Identifier: Apache-2.0
#include "cli/case/plain.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/half.h"
#include "kv/element.h"

namespace lacuna::cli {

void attend_row_plain(const op::Attend::Args& a, PackFormat like, int h, int row) {
  const auto rounded = [&](float x) {
    return like == PackFormat::pair16_bf16 ? bf16_to_float(float_to_bf16(x)) : x;
  };
  const std::int64_t kv_head = h / (a.hq / a.hkv);
  const float* q = a.q + h * a.q_head + row * a.q_row;

  std::vector<std::int64_t> cells;
  std::vector<float> score;
  const int block = row / a.runs.block_q, in_block = row % a.runs.block_q;
  const std::int32_t* list = a.runs.list(h, block);
  for (std::int32_t r = list[0]; r < list[1]; ++r) {
    const TileRun& run = a.runs.runs[r];
    const std::uint32_t word =
        run.bits < 0 ? ~0u : a.runs.words[static_cast<std::ptrdiff_t>(run.bits) * a.runs.block_q + in_block];
    for (std::int32_t tile = run.begin; tile < run.end; ++tile)
      for (int b = 0; b < kTileKeys; ++b)
        if (word >> b & 1u) cells.push_back(a.runs.cell(tile, b));
  }
  float top = -INFINITY;
  for (const std::int64_t c : cells) {
    float s = 0;
    for (int d = 0; d < a.dk; ++d) s += rounded(q[d]) * rounded(element(a.k, a.k_type, kv_head * a.k_head + c * a.k_cell + d));
    s *= a.scale;
    if (a.softcap > 0) s = a.softcap * std::tanh(s / a.softcap);
    score.push_back(s);
    top = std::max(top, s);
  }
  float sum = 0;
  std::vector<float> acc(static_cast<std::size_t>(a.dv), 0.0f);
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const float p = std::exp(score[i] - top);
    sum += p;
    for (int d = 0; d < a.dv; ++d)
      acc[static_cast<std::size_t>(d)] += rounded(p) * rounded(element(a.v, a.v_type, kv_head * a.v_head + cells[i] * a.v_cell + d));
  }
  for (int d = 0; d < a.dv; ++d)
    a.out[h * a.out_head + row * a.out_row + d] = sum > 0 ? acc[static_cast<std::size_t>(d)] / sum : 0.0f;
  if (a.lse) a.lse[static_cast<std::int64_t>(h) * a.n_rows + row] = sum > 0 ? top + std::log(sum) : -INFINITY;
}

}  // namespace lacuna::cli
