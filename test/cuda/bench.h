// SPDX-License-Identifier: Apache-2.0
// What the benches of lacuna-cuda-bench share: numbers to run on, a clock, a file.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/half.h"
#include "base/rng.h"
#include "device.h"

namespace lacuna::test {

int bench_decode(bool quick, const char* only, const char* file);  // decode_bench.cpp
int bench_choose(bool quick, const char* only, const char* file);  // choose_bench.cpp

// A hash.
inline std::uint32_t mix(std::uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
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

// To FILE.json, if one is asked for; false: it cannot be written.
inline bool save(const nlohmann::json& all, const char* file) {
  if (!file) return true;
  std::FILE* f = std::fopen(file, "w");
  if (!f) {
    fmt::print(stderr, "cannot write {}\n", file);
    return false;
  }
  std::fputs((all.dump(1) + "\n").c_str(), f);
  std::fclose(f);
  return true;
}

}  // namespace lacuna::test
