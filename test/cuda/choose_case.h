// SPDX-License-Identifier: Apache-2.0
// Queries and keys of a call that chooses blocks, on the host and on the device, and what comes back of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/half.h"
#include "base/rng.h"
#include "device.h"
#include "kernel/cuda/prefill.h"

namespace lacuna::test {

struct ChooseSpec {
  Dtype dtype = Dtype::bf16;
  int batch = 1, hq = 2, hkv = 1, nq = 700, nk = 700, dk = 64, stride = 8, block = 128;
  double mass = 0.9;
  float norm = 1;
  std::int64_t sink = 1, window = 1;
  bool token_major = false;
  int gap = 8;          // numbers between rows: 8 as TMA reads them; else the plain kernel's
  float spread = 8.0f;  // standard deviation of the logits
  std::uint64_t seed = 1;

  std::string line() const {
    return fmt::format(
        "choose {} b={} hq={} hkv={} nq={} nk={} dk={} stride={} block={} mass={} norm={} sink={} window={} "
        "token_major={} gap={} spread={} seed={}",
        name_of(dtype), batch, hq, hkv, nq, nk, dk, stride, block, mass, norm, sink, window, token_major, gap, spread, seed);
  }
};

// A tensor of 16-bit numbers with room between its rows, NaN in it.
struct Rows16 {
  Dtype dtype = Dtype::bf16;
  std::vector<std::uint16_t> data;
  std::int64_t batch = 0, head = 0, row = 0;

  void shape(const ChooseSpec& s, int heads, int n) {
    dtype = s.dtype;
    const std::int64_t d = s.dk + s.gap;
    row = s.token_major ? heads * d : d;
    head = s.token_major ? d : (n + 3) * row;
    batch = s.token_major ? (n + 3) * row : heads * head;
    data.assign(static_cast<std::size_t>(std::max<std::int64_t>(s.batch * batch, 8)), 0x7fff);
  }
  std::uint16_t& at(int b, int h, int i, int d) { return data[static_cast<std::size_t>(b * batch + h * head + i * row + d)]; }
  std::uint16_t of(float x) const { return dtype == Dtype::bf16 ? float_to_bf16(x) : float_to_half(x); }
  float number(int b, int h, int i, int d) const {
    const std::uint16_t x = data[static_cast<std::size_t>(b * batch + h * head + i * row + d)];
    return dtype == Dtype::bf16 ? bf16_to_float(x) : half_to_float(x);
  }
};

struct ChooseCase {
  explicit ChooseCase(const ChooseSpec& spec) : s(spec) {
    Rng rng(s.seed * 7919 + 11);
    q.shape(s, s.hq, s.nq);
    k.shape(s, s.hkv, s.nk);
    for (auto [t, heads, n] : {std::tuple{&q, s.hq, s.nq}, {&k, s.hkv, s.nk}})
      for (int b = 0; b < s.batch; ++b)
        for (int h = 0; h < heads; ++h)
          for (int i = 0; i < n; ++i)
            for (int d = 0; d < s.dk; ++d) t->at(b, h, i, d) = t->of(static_cast<float>(rng.normal()));
  }
  int row_blocks() const { return (s.nq + s.block - 1) / s.block; }
  int key_blocks() const { return (s.nk + s.block - 1) / s.block; }
  // Blocks that row block u sees something of.
  int seen(int u) const { return (s.nk - s.nq + std::min((u + 1) * s.block, s.nq) - 1) / s.block + 1; }
  float scale() const { return s.spread / std::sqrt(static_cast<float>(s.dk)); }

  ChooseSpec s;
  Rows16 q, k;
};

inline kernel::cuda::Tensor4 tensor_of(const Rows16& t, void* data) { return {data, t.batch, t.head, t.row}; }

// Lists as they came back: the blocks of row block u of a head, counted through the batch.
struct GotLists {
  std::vector<std::int32_t> row_ptr, columns;
  int rows = 0;
  std::vector<std::int32_t> row(int head, int u) const {
    const auto at = static_cast<std::size_t>(head) * (rows + 1) + static_cast<std::size_t>(u);
    if (row_ptr[at] < 0 || row_ptr[at + 1] < row_ptr[at] || row_ptr[at + 1] > static_cast<std::int32_t>(columns.size())) return {-1};
    return {columns.begin() + row_ptr[at], columns.begin() + row_ptr[at + 1]};
  }
};

}  // namespace lacuna::test
