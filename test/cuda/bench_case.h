// SPDX-License-Identifier: Apache-2.0
// What lacuna-cuda-bench measures of prefill and its backward: cases and their lists.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench.h"

namespace lacuna::test {

struct Case {
  const char* name;
  int hq, hkv, n, dk, dv;
  double density = 1;                                // below 1: lists, random and the diagonal
  int block_q = 128, block_k = 128, list_heads = 0;  // 0: a list for every query head
  bool causal = true;
};

// Whether a list names a block: the diagonal, and others by a hash that gpu_attention.py computes alike.
inline bool names(const Case& c, int list, int block, int column) {
  const int last = ((block + 1) * c.block_q - 1) / c.block_k;
  if (column >= last) return column == last;
  const auto at = static_cast<std::uint32_t>((list * 1024 + block) * 1024 + column);
  return mix(at + 1) < c.density * 4294967296.0;
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

// The backward of forward's cases (grad_bench.cpp).
nlohmann::json measure_grad(const Case& c, bool quick);

}  // namespace lacuna::test
