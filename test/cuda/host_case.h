// SPDX-License-Identifier: Apache-2.0
// What the generated calls of prefill_case.h and decode_case.h have in common: tensors with gaps, numbers drawn into
// them, the reference, and the arithmetic that the bound is made of.
//
// The reference is that of op/attend.h. The bound is that of every other kernel: twice the error of plain arithmetic
// with 16-bit weights (test/support/attend_case.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/half.h"
#include "base/rng.h"
#include "op/attend_ref.h"

namespace lacuna::test {

// A tensor of 16-bit numbers with room between its rows and after its end.
struct HostTensor {
  static constexpr std::uint16_t kUntouched = 0x7fad;  // a NaN in either type that no arithmetic makes
  std::vector<std::uint16_t> data;
  std::int64_t batch = 0, head = 0, row = 0;
  int batches = 0, heads = 0, rows = 0, channels = 0;

  void shape(int b, int h, int n, int d, bool token_major) {
    batches = b, heads = h, rows = n, channels = d;
    row = token_major ? std::int64_t{h} * d + 8 : d + 8;
    head = token_major ? d : (n + 3) * row;
    batch = token_major ? (n + 3) * row : h * head;
    data.assign(static_cast<std::size_t>(std::max<std::int64_t>(b * batch, 8)), kUntouched);
  }
  std::int64_t at(int b, int h, int i, int d) const { return b * batch + h * head + i * row + d; }

  // Calls visit(offset) for every number, channels innermost.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (int b = 0; b < batches; ++b)
      for (int h = 0; h < heads; ++h)
        for (int i = 0; i < rows; ++i)
          for (int d = 0; d < channels; ++d) visit(static_cast<std::size_t>(at(b, h, i, d)));
  }
};

// out [batch][hq][nq][dv] and lse [batch][hq][nq], without gaps.
struct HostResult {
  std::vector<float> out, lse;
};

// What some query heads of a sequence see, as tile runs: one block of all rows, every tile with a word for each row.
struct HostRuns {
  std::vector<TileRun> runs;
  std::vector<std::uint32_t> words;
  std::vector<std::int32_t> row_ptr;
  TileRuns view;
};

// Spec: dtype, batch, hq, hkv, nq, nk, dk, dv, token_major, spread.
template <class Spec>
class HostCase {
 public:
  using Result = HostResult;

  virtual ~HostCase() = default;
  virtual bool sees(int b, int h, int row, int key) const = 0;  // h: a query head

  float number(std::uint16_t x) const { return s.dtype == Dtype::bf16 ? bf16_to_float(x) : half_to_float(x); }
  std::uint16_t store(float x) const { return s.dtype == Dtype::bf16 ? float_to_bf16(x) : float_to_half(x); }
  float scale() const { return s.spread / std::sqrt(static_cast<float>(s.dk)); }
  int kv_head_of(int h) const { return h / (s.hq / s.hkv); }
  std::size_t place(int b, int h, int i) const {
    return (static_cast<std::size_t>(b) * s.hq + static_cast<std::size_t>(h)) * s.nq + static_cast<std::size_t>(i);
  }
  HostTensor out_layout() const {
    HostTensor t;
    t.shape(s.batch, s.hq, s.nq, s.dv, s.token_major);
    return t;
  }

  // A tensor's rows of one head as f32, without gaps.
  std::vector<float> numbers(const HostTensor& t, int b, int h) const {
    std::vector<float> x;
    for (int i = 0; i < t.rows; ++i)
      for (int d = 0; d < t.channels; ++d) x.push_back(number(t.data[t.at(b, h, i, d)]));
    return x;
  }

  // Draws of a normal distribution.
  void fill(HostTensor& t) {
    t.for_each([&](std::size_t at) { t.data[at] = store(static_cast<float>(rng_.normal())); });
  }

  // Query heads h .. h + n - 1 of a sequence.
  void lower(int b, int h, int n, HostRuns& to) const {
    to = {};
    const int block = std::max(s.nq, 1);
    for (int head = h; head < h + n; ++head) {
      to.row_ptr.push_back(static_cast<std::int32_t>(to.runs.size()));
      if (s.nq == 0) continue;
      for (int tile = 0; tile * kTileKeys < s.nk; ++tile) {
        to.runs.push_back({tile, tile + 1, static_cast<std::int32_t>(to.words.size()) / block});
        for (int i = 0; i < s.nq; ++i) {
          std::uint32_t word = 0;
          for (int c = 0; c < kTileKeys && tile * kTileKeys + c < s.nk; ++c)
            word |= static_cast<std::uint32_t>(sees(b, head, i, tile * kTileKeys + c)) << c;
          to.words.push_back(word);
        }
      }
      to.row_ptr.push_back(static_cast<std::int32_t>(to.runs.size()));
    }
    to.view.block_q = block, to.view.n_rows = s.nq, to.view.n_cells = s.nk, to.view.heads = n;
    to.view.row_ptr = to.row_ptr.data(), to.view.runs = to.runs.data(), to.view.words = to.words.data();
  }

  // op attend's reference.
  HostResult reference() const {
    HostResult r = fresh();
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h) {
        HostRuns runs;
        lower(b, h, 1, runs);
        const std::vector<float> queries = numbers(q, b, h);
        op::Attend::Args a;
        a.hq = a.hkv = 1;
        a.dk = s.dk, a.dv = s.dv, a.n_rows = s.nq, a.n_cells = s.nk;
        a.q = queries.data(), a.q_row = s.dk;
        a.k = k.data.data() + k.at(b, kv_head_of(h), 0, 0), a.k_cell = k.row;
        a.v = v.data.data() + v.at(b, kv_head_of(h), 0, 0), a.v_cell = v.row;
        a.k_type = a.v_type = s.dtype;
        a.runs = runs.view;
        a.scale = scale();
        a.out = r.out.data() + place(b, h, 0) * s.dv, a.out_row = s.dv;
        a.lse = r.lse.data() + place(b, h, 0);
        for (int i = 0; i < s.nq; ++i) op::attend_row_ref(a, 0, i);
      }
    return r;
  }

  // The formula in f32 with weights (relative to the row's largest score + shift) and out rounded to 16 bits.
  HostResult plain(float shift) const {
    HostResult r = fresh();
    std::vector<float> p(static_cast<std::size_t>(s.nk)), acc(static_cast<std::size_t>(s.dv));
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h)
        for (int i = 0; i < s.nq; ++i) {
          const int kv = kv_head_of(h);
          float m = -INFINITY, l = 0;
          for (int j = 0; j < s.nk; ++j) {
            p[j] = -INFINITY;
            if (!sees(b, h, i, j)) continue;
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

  Spec s;
  HostTensor q, k, v;

 protected:
  // q, k and v have their shapes and no numbers yet.
  HostCase(const Spec& spec, std::uint64_t seed) : s(spec), rng_(seed) {
    q.shape(s.batch, s.hq, s.nq, s.dk, s.token_major);
    k.shape(s.batch, s.hkv, s.nk, s.dk, s.token_major);
    v.shape(s.batch, s.hkv, s.nk, s.dv, s.token_major);
  }
  HostCase(const HostCase&) = default;
  HostCase(HostCase&&) = default;
  HostCase& operator=(const HostCase&) = default;
  HostCase& operator=(HostCase&&) = default;

  void shuffle(std::vector<std::int32_t>& x) {
    for (std::size_t i = x.size(); i > 1; --i) std::swap(x[i - 1], x[rng_.below(i)]);
  }

  Rng rng_;

 private:
  HostResult fresh() const {
    const std::size_t rows = static_cast<std::size_t>(s.batch) * s.hq * s.nq;
    return {std::vector<float>(rows * s.dv), std::vector<float>(rows)};
  }
};

}  // namespace lacuna::test
