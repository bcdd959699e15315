// SPDX-License-Identifier: Apache-2.0
// A raw key cache with random contents, and its side data by the reference, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "engine/side.h"
#include "kv/element.h"
#include "kv/quantise.h"
#include "op/side_write_ref.h"

namespace lacuna::test {

struct RawCache {
  Dtype dtype;
  std::int64_t cells;
  int heads, dim;
  std::vector<unsigned char> data;  // [cells][heads][dim]

  RawCache(Dtype type, std::int64_t n, int h, int d) : dtype(type), cells(n), heads(h), dim(d) {
    data.resize(static_cast<std::size_t>(bytes_of(type, n * h * d)));
  }
  std::size_t at(int h, std::int64_t c, int d) const { return static_cast<std::size_t>((c * heads + h) * dim + d); }
  void set(int h, std::int64_t c, int d, float x) {  // not of quantised types
    const float one[32] = {x};  // as long as a block, or g++ 12 warns of what never happens
    store_elements(data.data(), dtype, static_cast<std::int64_t>(at(h, c, d)), one, 1);
  }
  float get(int h, std::int64_t c, int d) const { return element(data.data(), dtype, static_cast<std::int64_t>(at(h, c, d))); }
  void fill_cell(Rng& rng, std::int64_t c) {
    std::vector<float> x(static_cast<std::size_t>(heads * dim));
    for (float& e : x) e = static_cast<float>(rng.normal());
    store_elements(data.data(), dtype, static_cast<std::int64_t>(at(0, c, 0)), x.data(), heads * dim);
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
    place(view.int8.data, shape.int8.bytes());
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
