// SPDX-License-Identifier: Apache-2.0
#include "block/calibrate/attention_parts.h"

#include <algorithm>
#include <cmath>

namespace lacuna::block {
namespace {

float dot(const float* a, const float* b, int d) {
  float lane[8] = {}, sum = 0;
  int c = 0;
  for (; c + 8 <= d; c += 8)
    for (int l = 0; l < 8; ++l) lane[l] += a[c + l] * b[c + l];
  for (; c < d; ++c) sum += a[c] * b[c];
  for (const float v : lane) sum += v;
  return sum;
}

}  // namespace

AttentionParts::AttentionParts(const AttentionView& x, std::int32_t h, std::int32_t first, std::int32_t n, std::int32_t step,
                               std::int32_t part_keys)
    : part_keys_(part_keys), dv_(x.v.dim) {
  constexpr float kLog2e = 1.44269504f;
  const int kv = h / (x.grid.heads / x.hkv);
  const std::int64_t seen_by_first = x.grid.first_key + first + 1, keys = seen_by_first + n - 1;
  const auto parts = static_cast<std::int32_t>((keys + part_keys - 1) / part_keys);
  for (std::int32_t p = 0; p < parts; ++p) full_.push_back(std::int64_t{p + 1} * part_keys <= seen_by_first);
  // Scores first, a key at a time for all rows; then the values.
  std::vector<std::vector<float>> score;
  std::vector<std::int32_t> at;
  for (std::int32_t i = first; i < first + n; i += step) at.push_back(i);
  score.assign(at.size(), std::vector<float>(static_cast<std::size_t>(keys), -std::numeric_limits<float>::infinity()));
  std::vector<float> row(static_cast<std::size_t>(std::max(x.dk, dv_)));
  for (std::int64_t j = 0; j < keys; ++j) {
    x.k.read(kv, j, row.data());
    for (std::size_t r = 0; r < at.size(); ++r)
      if (j <= x.grid.first_key + at[r])
        score[r][static_cast<std::size_t>(j)] = dot(x.q + h * x.q_head + at[r] * x.q_row, row.data(), x.dk) * x.scale * kLog2e;
  }
  rows_.resize(at.size());
  for (std::size_t r = 0; r < at.size(); ++r) {
    Row& to = rows_[r];
    to.top.assign(static_cast<std::size_t>(parts), -std::numeric_limits<float>::infinity());
    to.sum.assign(static_cast<std::size_t>(parts), 0.0f);
    to.acc.assign(static_cast<std::size_t>(parts * dv_), 0.0f);
    const float most = *std::max_element(score[r].begin(), score[r].end());
    for (std::int64_t j = 0; j < keys; ++j) {
      float& s = score[r][static_cast<std::size_t>(j)];
      const auto p = static_cast<std::size_t>(j / part_keys);
      to.top[p] = std::max(to.top[p], s);
      s = std::exp2(s - most);
      to.sum[p] += s;
    }
  }
  for (std::int64_t j = 0; j < keys; ++j) {
    x.v.read(kv, j, row.data());
    for (std::size_t r = 0; r < at.size(); ++r) {
      const float p = score[r][static_cast<std::size_t>(j)];
      float* acc = rows_[r].acc.data() + j / part_keys * dv_;
      if (p > 0)
        for (std::int32_t c = 0; c < dv_; ++c) acc[c] += p * row[static_cast<std::size_t>(c)];
    }
  }
  for (Row& to : rows_) {
    to.exact.assign(static_cast<std::size_t>(dv_), 0.0);
    double sum = 0;
    for (std::int32_t p = 0; p < parts; ++p) {
      sum += to.sum[static_cast<std::size_t>(p)];
      for (std::int32_t c = 0; c < dv_; ++c) to.exact[static_cast<std::size_t>(c)] += to.acc[static_cast<std::size_t>(p * dv_ + c)];
    }
    for (double& o : to.exact) o /= sum;
  }
}

void AttentionParts::add_error(const std::uint8_t* set, std::int32_t block_k, double pv_skip, OutputError& error) const {
  const auto parts = static_cast<std::int32_t>(full_.size());
  std::int32_t last = 0;
  for (std::int32_t p = 0; p < parts; ++p)
    if (set[std::int64_t{p} * part_keys_ / block_k]) last = p;
  std::vector<float> acc(static_cast<std::size_t>(dv_));
  for (const Row& row : rows_) {
    std::fill(acc.begin(), acc.end(), 0.0f);
    float sum = 0, before = -std::numeric_limits<float>::infinity();
    for (std::int32_t p = 0; p < parts; ++p) {
      if (!set[std::int64_t{p} * part_keys_ / block_k]) continue;
      const float top = row.top[static_cast<std::size_t>(p)];
      if (full_[static_cast<std::size_t>(p)] && p != last && top <= before - pv_skip) continue;
      before = std::max(before, top);
      sum += row.sum[static_cast<std::size_t>(p)];
      const float* part = row.acc.data() + p * dv_;
      for (std::int32_t c = 0; c < dv_; ++c) acc[static_cast<std::size_t>(c)] += part[c];
    }
    for (std::int32_t c = 0; c < dv_; ++c) {
      const double exact = row.exact[static_cast<std::size_t>(c)];
      error.difference += std::abs(exact - (sum > 0 ? static_cast<double>(acc[static_cast<std::size_t>(c)]) / sum : 0.0));
      error.size += std::abs(exact);
    }
  }
}

}  // namespace lacuna::block
