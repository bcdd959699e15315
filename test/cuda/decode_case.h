// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/decode.h on the host: host_case.h's tensors, lists, a cache in order or in pages.
//
// Keys and values have two homes: k and v by their number in the sequence, for the reference, and cache_k and cache_v
// as they lie in a cache of pages. Whatever no row may read is NaN.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "host_case.h"
#include "kernel/cuda/decode.h"

namespace lacuna::test {

enum class Names { all, some, none, nobody };  // what lists name; all: no lists, nobody: entries that are all -1

struct DecodeSpec {
  Dtype dtype = Dtype::bf16;
  int batch = 2, hq = 8, hkv = 2, nq = 1, nk = 300, dk = 128, dv = 128;
  bool causal = true, token_major = false, lse = true, lengths = false;
  Names names = Names::all;
  int cells = 16;       // of a list's pages
  bool shared = false;  // one list for all KV heads
  double density = 0.4;
  int page = 0;  // cells of the cache's pages; 0: no table
  float spread = 1.0f;
  std::uint64_t seed = 1;

  std::string line() const {
    static constexpr const char* kNames[] = {"all", "some", "none", "nobody"};
    return fmt::format(
        "decode {} b={} hq={} hkv={} nq={} nk={} dk={} dv={} causal={} token_major={} lse={} lengths={} names={} "
        "cells={} "
        "shared={} density={} page={} spread={} seed={}",
        name_of(dtype), batch, hq, hkv, nq, nk, dk, dv, causal, token_major, lse, lengths,
        kNames[static_cast<int>(names)], cells, shared, density, page, spread, seed);
  }
};

class DecodeCase : public HostCase<DecodeSpec> {
 public:
  explicit DecodeCase(const DecodeSpec& spec) : HostCase(spec, spec.seed * 6151 + 3) {
    for (int b = 0; b < s.batch; ++b)
      lengths.push_back(!s.lengths ? s.nk
                        : b == 0   ? s.nk
                                   : static_cast<int>(rng_.below(static_cast<std::uint64_t>(s.nk) + 1)));
    if (s.names != Names::all) make_lists();
    fill(q);
    for (HostTensor* t : {&k, &v}) fill_named(*t);
    if (s.page) make_cache();
  }

  int list_heads() const { return s.shared ? 1 : s.hkv; }
  int most() const { return (s.nk + s.cells - 1) / s.cells + 2; }
  int table_most() const { return (s.nk + s.page - 1) / s.page + 1; }

  // Whether a KV head's list has the key.
  bool named(int b, int kv, int key) const {
    if (key >= lengths[b]) return false;
    if (s.names == Names::all) return true;
    const int list = b * list_heads() + (s.shared ? 0 : kv);
    const auto first = pages.begin() + std::ptrdiff_t{list} * most();
    return std::find(first, first + counts[list], key / s.cells) != first + counts[list];
  }
  bool sees(int b, int h, int row, int key) const override {
    return (!s.causal || key <= row + lengths[b] - s.nq) && named(b, kv_head_of(h), key);
  }

  HostTensor cache_k, cache_v;
  std::vector<std::int32_t> lengths, counts, pages, table;
  int n_pages = 0;

 private:
  // NaN stays where no list of the KV head has the key.
  void fill_named(HostTensor& t) {
    for (int b = 0; b < t.batches; ++b)
      for (int h = 0; h < t.heads; ++h)
        for (int i = 0; i < t.rows; ++i)
          for (int d = 0; d < t.channels && named(b, h, i); ++d)
            t.data[t.at(b, h, i, d)] = store(static_cast<float>(rng_.normal()));
  }

  // Entries in random order, -1 among them; beyond the count whatever would be seen if it were read.
  void make_lists() {
    for (int b = 0; b < s.batch; ++b)
      for (int list = 0; list < list_heads(); ++list) {
        std::vector<std::int32_t> named;
        for (int page = 0; page * s.cells < lengths[b]; ++page)
          if (s.names != Names::none && rng_.uniform() < s.density)
            named.push_back(s.names == Names::nobody ? -1 : page);
        if (s.names == Names::some) named.push_back(-1);
        shuffle(named);
        counts.push_back(static_cast<std::int32_t>(named.size()));
        named.resize(static_cast<std::size_t>(most()), 0);
        pages.insert(pages.end(), named.begin(), named.end());
      }
  }

  // The sequences' pages in random order among some that are nobody's.
  void make_cache() {
    n_pages = s.batch * table_most() + 3;
    std::vector<std::int32_t> order(static_cast<std::size_t>(n_pages));
    std::iota(order.begin(), order.end(), 0);
    shuffle(order);
    table.assign(order.begin(), order.begin() + std::ptrdiff_t{s.batch} * table_most());
    cache_k.shape(n_pages, s.hkv, s.page, s.dk, s.token_major);
    cache_v.shape(n_pages, s.hkv, s.page, s.dv, !s.token_major);
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hkv; ++h)
        for (int j = 0; j < s.nk; ++j) {
          const int page = table[static_cast<std::size_t>(b * table_most() + j / s.page)];
          std::copy_n(k.data.begin() + k.at(b, h, j, 0), s.dk,
                      cache_k.data.begin() + cache_k.at(page, h, j % s.page, 0));
          std::copy_n(v.data.begin() + v.at(b, h, j, 0), s.dv,
                      cache_v.data.begin() + cache_v.at(page, h, j % s.page, 0));
        }
  }
};

}  // namespace lacuna::test
