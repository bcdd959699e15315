// SPDX-License-Identifier: Apache-2.0
#include "block/estimate/head_means.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "block/slots.h"
#include "op/pack.h"

namespace lacuna::block {

std::int32_t heads_together(const AttentionView& x, std::int64_t wanted) {
  const std::int32_t group = x.grid.heads / x.hkv;
  if (wanted <= 0) return group;
  const auto largest_divisor = [](std::int32_t of, std::int64_t most) {
    auto d = static_cast<std::int32_t>(std::min<std::int64_t>(of, most));
    while (of % d != 0) --d;
    return d;
  };
  return wanted < group ? largest_divisor(group, wanted) : group * largest_divisor(x.hkv, wanted / group);
}

HeadMeans::HeadMeans(const AttentionView& x, std::int32_t together, Context& context)
    : x_(x), together_(together), context_(context) {
  kv_together_ = std::max(1, together / (x.grid.heads / x.hkv));
  if (kv_together_ == 1) return;
  const std::int64_t n = x.grid.n_keys, size = n * x.dk;
  const std::int32_t proxies = x.hkv / kv_together_;
  float* mean = context.scratch_as<float>(kKeySumSlot, static_cast<std::size_t>(proxies * size));
  constexpr std::int64_t kKeys = 256;  // of a task
  const auto parts = static_cast<int>((n + kKeys - 1) / kKeys);
  context.threads().each(proxies * parts, [&](int task, int) {
    const std::int32_t p = task / parts;
    const std::int64_t begin = task % parts * kKeys, end = std::min(begin + kKeys, n);
    std::vector<float> key(static_cast<std::size_t>(x.dk));
    for (std::int64_t j = begin; j < end; ++j) {
      float* to = mean + p * size + j * x.dk;
      std::fill(to, to + x.dk, 0.0f);
      for (std::int32_t kv = p * kv_together_; kv < (p + 1) * kv_together_; ++kv) {
        x.k.read(kv, j, key.data());
        for (std::int32_t d = 0; d < x.dk; ++d) to[d] += key[static_cast<std::size_t>(d)] / static_cast<float>(kv_together_);
      }
    }
  });
  packed_ = {nullptr, x.keys->ordered().packed.format, proxies, x.dk, n};
  const std::size_t bytes = static_cast<std::size_t>(tiles_of(n) * proxies) * packed_.block_bytes();
  void* const room = context.scratch(kPackSlot, bytes);
  std::memset(room, 0, bytes);  // channels and cells that only fill up a tile
  packed_.data = room;
  context.run<op::Pack>({.dtype = Dtype::f32,
                         .raw = mean,
                         .head = size,
                         .cell = x.dk,
                         .n = n,
                         .format = packed_.format,
                         .heads = proxies,
                         .dim = x.dk,
                         .packed = room});
}

AttentionView HeadMeans::view() {
  AttentionView out = x_;
  out.grid.heads = x_.grid.heads / together_;
  if (packed_.data) {
    out.hkv = packed_.heads;
    out.keys = this;
  }
  return out;
}

const float* HeadMeans::queries(std::span<const std::int32_t> rows) const {
  const std::int32_t proxies = x_.grid.heads / together_;
  const auto n = static_cast<std::int64_t>(rows.size());
  float* mean = context_.scratch_as<float>(kColumnSlot, static_cast<std::size_t>(proxies * n * x_.dk));
  context_.threads().each(proxies, [&](int p, int) {
    for (std::int64_t r = 0; r < n; ++r) {
      float* to = mean + (p * n + r) * x_.dk;
      std::fill(to, to + x_.dk, 0.0f);
      for (std::int32_t h = p * together_; h < (p + 1) * together_; ++h) {
        const float* q = x_.q + h * x_.q_head + rows[static_cast<std::size_t>(r)] * x_.q_row;
        for (std::int32_t d = 0; d < x_.dk; ++d) to[d] += q[d] / static_cast<float>(together_);
      }
    }
  });
  return mean;
}

}  // namespace lacuna::block
