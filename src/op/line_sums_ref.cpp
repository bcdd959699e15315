// SPDX-License-Identifier: Apache-2.0
#include "op/line_sums_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "op/strided_scores_ref.h"

namespace lacuna::op {

void line_sums_head_ref(const LineSums::Args& a, int h) {
  std::vector<double> vertical(static_cast<std::size_t>(a.n_keys)), slash(vertical.size()), weight(vertical.size());
  std::vector<float> score(vertical.size());
  StridedScores::Args s;  // plain products: a stride of 1
  s.stride = 1;
  s.hq = s.hkv = 1;
  s.dk = a.dk;
  s.n_rows = 1;
  s.n_keys = a.n_keys;
  s.first_cell = a.first_cell;
  s.packed_k = a.packed_k;
  s.packed_k.data = a.packed_k.block(0, h / (a.hq / a.hkv));
  s.score = score.data();
  s.score_row = a.n_keys;
  for (std::int32_t i = 0; i < a.n_rows; ++i) {
    const std::int64_t own = a.first_key + i;
    s.q = a.q + h * a.q_head + i * a.q_row;
    s.first_key_of_row0 = own;
    strided_scores_row_ref(s, 0, 0);
    float top = score[0];
    for (std::int64_t j = 0; j <= own; ++j) top = score[j] > top || top != top ? score[j] : top;
    double sum = 0;
    for (std::int64_t j = 0; j <= own; ++j) {
      const double x = (double{score[j]} - top) * a.scale;
      weight[j] = x >= -87 ? std::exp(x) : std::exp(-87.0);  // NaN too
      sum += weight[j];
    }
    for (std::int64_t j = 0; j <= own; ++j) {
      vertical[j] += weight[j] / sum;
      slash[own - j] += weight[j] / sum;
    }
  }
  std::copy(vertical.begin(), vertical.end(), a.vertical + h * a.n_keys);
  std::copy(slash.begin(), slash.end(), a.slash + h * a.n_keys);
}

}  // namespace lacuna::op
