// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/self_similarity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "block/slots.h"

namespace lacuna::block {
namespace {

// Adds vectors one by one, scaled to length 1.
class Alike {
 public:
  Alike(float* sum, int d) : sum_(sum), d_(d) { std::fill(sum, sum + d, 0.0f); }
  void add(const float* x, const float* less) {
    float lane[8] = {}, square = 0;
    int c = 0;
    for (; c + 8 <= d_; c += 8)
      for (int l = 0; l < 8; ++l) lane[l] += (x[c + l] - less[c + l]) * (x[c + l] - less[c + l]);
    for (; c < d_; ++c) square += (x[c] - less[c]) * (x[c] - less[c]);
    for (const float v : lane) square += v;
    if (square == 0) return;
    ++n_;
    const float by = 1.0f / std::sqrt(square);
    for (c = 0; c < d_; ++c) sum_[c] += (x[c] - less[c]) * by;
  }
  float value() const {
    double square = 0;
    for (int c = 0; c < d_; ++c) square += static_cast<double>(sum_[c]) * sum_[c];
    return n_ == 0 ? 1.0f : static_cast<float>(square / (static_cast<double>(n_) * static_cast<double>(n_)));
  }

 private:
  float* sum_;
  int d_;
  std::int64_t n_ = 0;
};

}  // namespace

SelfSimilarity self_similarity(const AttentionView& x, std::int32_t block_q, std::int32_t block_k, bool smooth,
                               Context& context) {
  const Grid& g = x.grid;
  SelfSimilarity out;
  out.row_blocks = (g.n_rows + block_q - 1) / block_q;
  out.key_blocks = (g.n_keys + block_k - 1) / block_k;
  const std::int64_t of_rows = std::int64_t{g.heads} * out.row_blocks, of_keys = x.hkv * out.key_blocks, d = x.dk;
  auto* alike = context.scratch_as<float>(kAlikeSlot, static_cast<std::size_t>(of_rows + of_keys));
  out.rows = alike;
  out.keys = alike + of_rows;
  // Per worker: a sum and a key. Per KV head: its mean. Per key block: the sum of its keys.
  const std::int64_t workers = context.threads().workers();
  float* work = context.scratch_as<float>(kWorkSlot, static_cast<std::size_t>(workers * 2 * d));
  float* mean = context.scratch_as<float>(kPoolSlot, static_cast<std::size_t>((x.hkv + of_keys) * d));
  float* sums = mean + x.hkv * d;
  const auto keys_of = [&](std::int64_t b, auto&& each) {
    for (std::int64_t j = b * block_k; j < std::min<std::int64_t>((b + 1) * block_k, g.n_keys); ++j) each(j);
  };

  std::fill(mean, mean + x.hkv * d, 0.0f);
  if (smooth) {
    context.threads().each(static_cast<int>(of_keys), [&](int task, int worker) {
      float *sum = sums + task * d, *key = work + worker * 2 * d;
      std::fill(sum, sum + d, 0.0f);
      keys_of(task % out.key_blocks, [&](std::int64_t j) {
        x.k.read(static_cast<int>(task / out.key_blocks), j, key);
        for (std::int64_t c = 0; c < d; ++c) sum[c] += key[c];
      });
    });
    for (int kv = 0; kv < x.hkv; ++kv)
      for (std::int64_t c = 0; c < d; ++c) {
        double sum = 0;
        for (std::int64_t b = 0; b < out.key_blocks; ++b) sum += sums[(kv * out.key_blocks + b) * d + c];
        mean[kv * d + c] = static_cast<float>(sum / static_cast<double>(g.n_keys));
      }
  }
  context.threads().each(static_cast<int>(of_keys), [&](int task, int worker) {
    const auto kv = static_cast<int>(task / out.key_blocks);
    float* key = work + worker * 2 * d;
    Alike a(key + d, x.dk);
    keys_of(task % out.key_blocks, [&](std::int64_t j) {
      x.k.read(kv, j, key);
      a.add(key, mean + kv * d);
    });
    alike[of_rows + task] = a.value();
  });
  std::fill(mean, mean + d, 0.0f);  // queries are taken as they are
  context.threads().each(static_cast<int>(of_rows), [&](int task, int worker) {
    const std::int32_t h = task / out.row_blocks, first = task % out.row_blocks * block_q;
    Alike a(work + worker * 2 * d, x.dk);
    for (std::int32_t i = first; i < std::min(first + block_q, g.n_rows); ++i) a.add(x.q + h * x.q_head + i * x.q_row, mean);
    alike[task] = a.value();
  });
  return out;
}

}  // namespace lacuna::block
