// SPDX-License-Identifier: Apache-2.0
// What lacuna-cuda-bench measures: cases, their numbers and lists, and the time of a call.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/half.h"
#include "base/rng.h"
#include "device.h"

namespace lacuna::test {

struct Case {
  const char* name;
  int hq, hkv, n, dk, dv;
  double density = 1;                                // below 1: lists, random and the diagonal
  int block_q = 128, block_k = 128, list_heads = 0;  // 0: a list for every query head
  bool causal = true;
};

// Whether a list names a block: the diagonal, and others by a hash that gpu_attention.py computes alike.
inline std::uint32_t mix(std::uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}
inline bool names(const Case& c, int list, int block, int column) {
  const int last = ((block + 1) * c.block_q - 1) / c.block_k;
  if (column >= last) return column == last;
  const auto at = static_cast<std::uint32_t>((list * 1024 + block) * 1024 + column);
  return mix(at + 1) < c.density * 4294967296.0;
}

// Draws of a normal distribution, from a table: 16-bit numbers have no more of them.
inline std::vector<std::uint16_t> random_numbers(std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::uint16_t> table(1 << 16), all(n);
  for (auto& x : table) x = float_to_bf16(static_cast<float>(rng.normal()));
  for (std::size_t i = 0; i < n;) {
    std::uint64_t x = rng.next();
    for (int part = 0; part < 4 && i < n; ++part, x >>= 16) all[i++] = table[x & 0xffff];
  }
  return all;
}

struct Lists {
  std::vector<std::int32_t> row_ptr, columns;
  double pairs = 0;
  explicit Lists(const Case& c) {
    if (c.density >= 1) return;
    const int lists = c.list_heads ? c.list_heads : c.hq, blocks = c.n / c.block_q;
    for (int list = 0; list < lists; ++list)
      for (int block = 0; block <= blocks; ++block) {
        row_ptr.push_back(static_cast<std::int32_t>(columns.size()));
        for (int column = c.n / c.block_k - 1; column >= 0 && block < blocks; --column)
          if (names(c, list, block, column)) columns.push_back(column);
      }
    pairs = static_cast<double>(columns.size()) * c.block_q * c.block_k * c.hq / lists;
  }
};

// Median milliseconds of one call among many in a row, the card warm.
template <class F>
double median_ms(F&& call, double warm_ms, double ms) {
  const auto once = [&](int n) {
    std::vector<cudaEvent_t> at(static_cast<std::size_t>(n) + 1);
    for (auto& e : at) must(cudaEventCreate(&e));
    must(cudaEventRecord(at[0]));
    for (int i = 0; i < n; ++i) {
      call();
      must(cudaEventRecord(at[static_cast<std::size_t>(i) + 1]));
    }
    must(cudaDeviceSynchronize());
    std::vector<float> took(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < took.size(); ++i) must(cudaEventElapsedTime(&took[i], at[i], at[i + 1]));
    for (auto& e : at) must(cudaEventDestroy(e));
    std::nth_element(took.begin(), took.begin() + n / 2, took.end());
    return static_cast<double>(took[static_cast<std::size_t>(n / 2)]);
  };
  const double first = once(3);
  once(std::max(3, static_cast<int>(warm_ms / first)));
  return once(std::max(7, static_cast<int>(ms / first)));
}

// The backward of forward's cases (grad_bench.cpp).
nlohmann::json measure_grad(const Case& c, bool quick);

}  // namespace lacuna::test
