// SPDX-License-Identifier: Apache-2.0
// A raw key cache with random contents, and its side data by the reference, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "engine/side.h"
#include "op/side_write_ref.h"

namespace lacuna::test {

struct RawCache {
  Dtype dtype;
  std::int64_t cells;
  int heads, dim;
  std::vector<unsigned char> data;  // [cells][heads][dim]

  RawCache(Dtype type, std::int64_t n, int h, int d) : dtype(type), cells(n), heads(h), dim(d) {
    data.resize(static_cast<std::size_t>(n) * static_cast<std::size_t>(h * d) * size_of(type));
  }
  std::size_t at(int h, std::int64_t c, int d) const { return static_cast<std::size_t>((c * heads + h) * dim + d); }
  void set(int h, std::int64_t c, int d, float x) {
    const std::uint16_t half = dtype == Dtype::f16 ? float_to_half(x) : float_to_bf16(x);
    if (dtype == Dtype::f32) std::memcpy(&data[at(h, c, d) * 4], &x, 4);
    else std::memcpy(&data[at(h, c, d) * 2], &half, 2);
  }
  float get(int h, std::int64_t c, int d) const {
    float x = 0;
    std::uint16_t half = 0;
    if (dtype == Dtype::f32) std::memcpy(&x, &data[at(h, c, d) * 4], 4);
    else std::memcpy(&half, &data[at(h, c, d) * 2], 2);
    return dtype == Dtype::f32 ? x : dtype == Dtype::f16 ? half_to_float(half) : bf16_to_float(half);
  }
  void fill_cell(Rng& rng, std::int64_t c) {
    for (int h = 0; h < heads; ++h)
      for (int d = 0; d < dim; ++d) set(h, c, d, static_cast<float>(rng.normal()));
  }
  void fill(Rng& rng) {
    for (std::int64_t c = 0; c < cells; ++c) fill_cell(rng, c);
  }
  void fill_bits(Rng& rng) {  // every kind of bit pattern
    for (auto& b : data) b = static_cast<unsigned char>(rng.next());
  }
  Tensor tensor() { return token_major(data.data(), dtype, 1, heads, cells, dim); }
};

// A place for side data like `shape`, all zeros, between guards that `intact` looks at.
class GuardedSide {
 public:
  explicit GuardedSide(const SideView& shape) : view(shape) {
    place(view.pages.data, shape.pages.bytes());
    place(view.int4.data, shape.int4.bytes());
    place(view.labels.data, shape.labels.bytes());
    const void* pooled = view.pooled.data;
    place(pooled, shape.pooled.bytes());
    view.pooled.data = static_cast<const float*>(pooled);
  }
  bool intact() const {
    for (const auto& b : blocks_)
      for (std::size_t i = 0; i < kGuard; ++i)
        if (b[i] != 0x5a || b[b.size() - 1 - i] != 0x5a) return false;
    return true;
  }
  SideView view;

 private:
  static constexpr std::size_t kGuard = 256;
  void place(const void*& data, std::size_t bytes) {
    if (!data) return;
    blocks_.emplace_back(bytes + 2 * kGuard, static_cast<unsigned char>(0x5a));
    std::memset(blocks_.back().data() + kGuard, 0, bytes);
    data = blocks_.back().data() + kGuard;
  }
  std::vector<std::vector<unsigned char>> blocks_;
};

}  // namespace lacuna::test
