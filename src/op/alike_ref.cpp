// SPDX-License-Identifier: Apache-2.0
#include "op/alike_ref.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kv/element.h"

namespace lacuna::op {

void alike_head_ref(const Alike::Args& a, int head) {
  const auto dim = static_cast<std::size_t>(a.dim);
  std::vector<double> less(dim), x(dim), sum(dim), plain(dim);
  const auto read = [&](std::int64_t i) {
    const std::int64_t at = head * a.head + (a.place ? a.place[i] : i) * a.row;
    for (std::size_t d = 0; d < dim; ++d) x[d] = element(a.x, a.dtype, at + static_cast<std::int64_t>(d));
  };
  if (a.less) less.assign(a.less + std::int64_t{head} * a.dim, a.less + std::int64_t{head + 1} * a.dim);
  for (std::int64_t b = 0; b < a.blocks(); ++b) {
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(plain.begin(), plain.end(), 0.0);
    std::int64_t count = 0;
    for (std::int64_t i = b * a.block; i < std::min((b + 1) * a.block, a.n); ++i) {
      read(i);
      double square = 0;
      for (std::size_t d = 0; d < dim; ++d) plain[d] += x[d];
      for (std::size_t d = 0; d < dim; ++d) square += (x[d] - less[d]) * (x[d] - less[d]);
      if (square == 0) continue;
      ++count;
      for (std::size_t d = 0; d < dim; ++d) sum[d] += (x[d] - less[d]) / std::sqrt(square);
    }
    double square = 0;
    for (const double s : sum) square += s * s;
    if (a.sum)
      for (std::size_t d = 0; d < dim; ++d)
        a.sum[(head * a.blocks() + b) * a.dim + static_cast<std::int64_t>(d)] = static_cast<float>(plain[d]);
    a.sim[head * a.blocks() + b] = count == 0 ? 1.0f : static_cast<float>(square / (static_cast<double>(count) * count));
  }
}

}  // namespace lacuna::op
