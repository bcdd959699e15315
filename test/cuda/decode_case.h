// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/decode.h on the host: tensors with gaps, lists, a cache in order or in pages, the
// reference of op/attend.h, and the bound of every other kernel (twice the error of plain arithmetic with 16-bit
// weights).
//
// Keys and values have two homes: k and v by their number in the sequence, for the reference, and cache_k and cache_v
// as they lie in a cache of pages. Whatever no row may read is NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "kernel/cuda/decode.h"
#include "prefill_case.h"

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

class DecodeCase {
 public:
  explicit DecodeCase(const DecodeSpec& spec) : s(spec), rng_(spec.seed * 6151 + 3) {
    q.shape(s.batch, s.hq, s.nq, s.dk, s.token_major);
    k.shape(s.batch, s.hkv, s.nk, s.dk, s.token_major);
    v.shape(s.batch, s.hkv, s.nk, s.dv, s.token_major);
    for (int b = 0; b < s.batch; ++b)
      lengths.push_back(!s.lengths ? s.nk
                        : b == 0   ? s.nk
                                   : static_cast<int>(rng_.below(static_cast<std::uint64_t>(s.nk) + 1)));
    if (s.names != Names::all) make_lists();
    fill(q, [](int, int, int) { return true; });
    fill(k, [&](int b, int h, int j) { return named(b, h, j); });
    fill(v, [&](int b, int h, int j) { return named(b, h, j); });
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
  bool sees(int b, int kv, int row, int key) const {
    return (!s.causal || key <= row + lengths[b] - s.nq) && named(b, kv, key);
  }

  float number(std::uint16_t x) const { return s.dtype == Dtype::bf16 ? bf16_to_float(x) : half_to_float(x); }
  std::uint16_t store(float x) const { return s.dtype == Dtype::bf16 ? float_to_bf16(x) : float_to_half(x); }
  float scale() const { return s.spread / std::sqrt(static_cast<float>(s.dk)); }

  // The reference of op attend: a tile for every 32 keys, a word for every row.
  PrefillCase::Result reference() const {
    PrefillCase::Result r = fresh();
    std::vector<float> queries(static_cast<std::size_t>(s.nq) * s.dk);
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h) {
        const int kv = h / (s.hq / s.hkv), tiles = (s.nk + kTileKeys - 1) / kTileKeys;
        std::vector<TileRun> runs;
        std::vector<std::uint32_t> seen;
        for (int tile = 0; tile < tiles; ++tile) {
          runs.push_back({tile, tile + 1, tile});
          for (int i = 0; i < s.nq; ++i) {
            std::uint32_t word = 0;
            for (int c = 0; c < kTileKeys; ++c)
              word |= static_cast<std::uint32_t>(sees(b, kv, i, tile * kTileKeys + c)) << c;
            seen.push_back(word);
          }
        }
        const std::int32_t row_ptr[] = {0, tiles};
        for (int i = 0; i < s.nq; ++i)
          for (int d = 0; d < s.dk; ++d)
            queries[static_cast<std::size_t>(i) * s.dk + d] = number(q.data[q.at(b, h, i, d)]);
        op::Attend::Args a;
        a.hq = a.hkv = 1;
        a.dk = s.dk, a.dv = s.dv, a.n_rows = s.nq, a.n_cells = s.nk;
        a.q = queries.data(), a.q_row = s.dk;
        a.k = k.data.data() + k.at(b, kv, 0, 0), a.k_cell = k.row;
        a.v = v.data.data() + v.at(b, kv, 0, 0), a.v_cell = v.row;
        a.k_type = a.v_type = s.dtype;
        a.runs.block_q = s.nq, a.runs.n_rows = s.nq, a.runs.n_cells = s.nk;
        a.runs.row_ptr = row_ptr, a.runs.runs = runs.data(), a.runs.words = seen.data();
        a.scale = scale();
        a.out = r.out.data() + place(b, h, 0) * s.dv, a.out_row = s.dv;
        a.lse = r.lse.data() + place(b, h, 0);
        for (int i = 0; i < s.nq; ++i) op::attend_row_ref(a, 0, i);
      }
    return r;
  }

  // The formula in f32 with weights (relative to the row's largest score + shift) and out rounded to 16 bits.
  PrefillCase::Result plain(float shift) const {
    PrefillCase::Result r = fresh();
    std::vector<float> p(static_cast<std::size_t>(s.nk)), acc(static_cast<std::size_t>(s.dv));
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h)
        for (int i = 0; i < s.nq; ++i) {
          const int kv = h / (s.hq / s.hkv);
          float m = -INFINITY, l = 0;
          for (int j = 0; j < s.nk; ++j) {
            p[j] = -INFINITY;
            if (!sees(b, kv, i, j)) continue;
            float x = 0;
            for (int d = 0; d < s.dk; ++d) x += number(q.data[q.at(b, h, i, d)]) * number(k.data[k.at(b, kv, j, d)]);
            p[j] = x * scale();
            m = std::max(m, p[j]);
          }
          std::fill(acc.begin(), acc.end(), 0.0f);
          for (int j = 0; j < s.nk; ++j) {
            if (p[j] == -INFINITY) continue;
            const float e = std::exp(p[j] - (m + shift)), rounded = number(store(e));
            l += e;
            for (int d = 0; d < s.dv; ++d) acc[d] += rounded * number(v.data[v.at(b, kv, j, d)]);
          }
          for (int d = 0; d < s.dv; ++d) r.out[place(b, h, i) * s.dv + d] = l > 0 ? number(store(acc[d] / l)) : 0.0f;
          r.lse[place(b, h, i)] = l > 0 ? m + shift + std::log(l) : -INFINITY;
        }
    return r;
  }

  std::size_t place(int b, int h, int i) const {
    return (static_cast<std::size_t>(b) * s.hq + static_cast<std::size_t>(h)) * s.nq + static_cast<std::size_t>(i);
  }

  DecodeSpec s;
  HostTensor q, k, v, cache_k, cache_v;
  std::vector<std::int32_t> lengths, counts, pages, table;
  int n_pages = 0;

 private:
  PrefillCase::Result fresh() const {
    const std::size_t rows = static_cast<std::size_t>(s.batch) * s.hq * s.nq;
    return {std::vector<float>(rows * s.dv), std::vector<float>(rows)};
  }

  // NaN stays where `there` says no.
  template <class There>
  void fill(HostTensor& t, There there) {
    for (int b = 0; b < t.batches; ++b)
      for (int h = 0; h < t.heads; ++h)
        for (int i = 0; i < t.rows; ++i)
          for (int d = 0; d < t.channels && there(b, h, i); ++d)
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
        for (std::size_t i = named.size(); i > 1; --i) std::swap(named[i - 1], named[rng_.below(i)]);
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
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng_.below(i)]);
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

  Rng rng_;
};

}  // namespace lacuna::test
