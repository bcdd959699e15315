// SPDX-License-Identifier: Apache-2.0
// A generated call of kernel/cuda/prefill.h on the host: tensors with gaps, lists, the reference, and the bound.
//
// The reference is that of op/attend.h: the lists become TileRuns with a word for every row. The bound is that of
// every other kernel: twice the error of plain arithmetic with 16-bit weights (test/support/attend_case.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/half.h"
#include "base/rng.h"
#include "kernel/cuda/prefill.h"
#include "op/attend_ref.h"

namespace lacuna::test {

enum class Cover { dense, random, partial, empty_rows, nothing };  // what lists name; dense: no lists
enum class Share { all, kv_head, head };

struct PrefillSpec {
  Dtype dtype = Dtype::bf16;
  int batch = 1, hq = 4, hkv = 2, nq = 200, nk = 200, dk = 128, dv = 128, block_q = 128, block_k = 128;
  bool causal = true, token_major = false, lse = true, lists_of_sequences = false;
  Cover cover = Cover::dense;
  Share share = Share::head;
  double density = 0.5;
  float spread = 1.0f;  // standard deviation of the logits
  std::uint64_t seed = 1;

  std::string line() const {
    static constexpr const char* kCover[] = {"dense", "random", "partial", "empty_rows", "nothing"};
    static constexpr const char* kShare[] = {"all", "kv_head", "head"};
    return fmt::format(
        "prefill {} b={} hq={} hkv={} nq={} nk={} dk={} dv={} blocks={}x{} causal={} token_major={} lse={} "
        "of_sequences={} "
        "cover={} share={} density={} spread={} seed={}",
        name_of(dtype), batch, hq, hkv, nq, nk, dk, dv, block_q, block_k, causal, token_major, lse, lists_of_sequences,
        kCover[static_cast<int>(cover)], kShare[static_cast<int>(share)], density, spread, seed);
  }
};

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
};

class PrefillCase {
 public:
  explicit PrefillCase(const PrefillSpec& spec) : s(spec), rng_(spec.seed * 7919 + 5) {
    q.shape(s.batch, s.hq, s.nq, s.dk, s.token_major);
    k.shape(s.batch, s.hkv, s.nk, s.dk, s.token_major);
    v.shape(s.batch, s.hkv, s.nk, s.dv, s.token_major);
    for (HostTensor* t : {&q, &k, &v}) fill(*t);
    if (s.cover != Cover::dense) make_lists();
    hide_what_nobody_names();
  }

  int lists() const { return s.share == Share::all ? 1 : s.share == Share::head ? s.hq : s.hkv; }
  int list_batches() const { return s.lists_of_sequences ? s.batch : 1; }
  int blocks_q() const { return (s.nq + s.block_q - 1) / s.block_q; }
  int blocks_k() const { return (s.nk + s.block_k - 1) / s.block_k; }

  bool sees(int b, int h, int row, int key) const {
    if (key >= s.nk || (s.causal && key > row + s.nk - s.nq)) return false;
    if (s.cover == Cover::dense) return true;
    const int entry = entry_of(b, h, row / s.block_q, key / s.block_k);
    if (entry < 0) return false;
    const int mask = bits[static_cast<std::size_t>(entry)];
    if (mask < 0) return true;
    const int c = key % s.block_k;
    const std::size_t word = (static_cast<std::size_t>(mask) * s.block_q + row % s.block_q) * (s.block_k / 32) + c / 32;
    return words[word] >> (c % 32) & 1u;
  }

  float number(std::uint16_t x) const { return s.dtype == Dtype::bf16 ? bf16_to_float(x) : half_to_float(x); }
  std::uint16_t store(float x) const { return s.dtype == Dtype::bf16 ? float_to_bf16(x) : float_to_half(x); }
  float scale() const { return s.spread / std::sqrt(static_cast<float>(s.dk)); }

  // out [batch][hq][nq][dv] and lse [batch][hq][nq], without gaps.
  struct Result {
    std::vector<float> out, lse;
  };

  // What query heads h .. h + n - 1 of a sequence see, as tile runs: every tile with a word for each row.
  struct Runs {
    std::vector<TileRun> runs;
    std::vector<std::uint32_t> words;
    std::vector<std::int32_t> row_ptr;
    TileRuns view;
  };
  void lower(int b, int h, int n, Runs& to) const {
    to = {};
    for (int head = h; head < h + n; ++head) {
      to.row_ptr.push_back(static_cast<std::int32_t>(to.runs.size()));
      for (int first = 0; first < s.nq; first += s.block_q) {
        for (int tile = 0; tile * kTileKeys < s.nk; ++tile) {
          to.runs.push_back({tile, tile + 1, static_cast<std::int32_t>(to.words.size()) / s.block_q});
          for (int i = first; i < first + s.block_q; ++i) {
            std::uint32_t word = 0;
            for (int c = 0; c < kTileKeys && i < s.nq; ++c)
              word |= static_cast<std::uint32_t>(sees(b, head, i, tile * kTileKeys + c)) << c;
            to.words.push_back(word);
          }
        }
        to.row_ptr.push_back(static_cast<std::int32_t>(to.runs.size()));
      }
    }
    to.view.block_q = s.block_q, to.view.n_rows = s.nq, to.view.n_cells = s.nk, to.view.heads = n;
    to.view.row_ptr = to.row_ptr.data(), to.view.runs = to.runs.data(), to.view.words = to.words.data();
  }

  // A tensor's rows of one head as f32, without gaps.
  std::vector<float> numbers(const HostTensor& t, int b, int h) const {
    std::vector<float> x;
    for (int i = 0; i < t.rows; ++i)
      for (int d = 0; d < t.channels; ++d) x.push_back(number(t.data[t.at(b, h, i, d)]));
    return x;
  }

  // op attend's reference.
  Result reference() const {
    Result r = fresh();
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h) {
        Runs runs;
        lower(b, h, 1, runs);
        const std::vector<float> queries = numbers(q, b, h);
        op::Attend::Args a;
        a.hq = a.hkv = 1;
        a.dk = s.dk, a.dv = s.dv, a.n_rows = s.nq, a.n_cells = s.nk;
        a.q = queries.data(), a.q_row = s.dk;
        a.k = k.data.data() + k.at(b, h / (s.hq / s.hkv), 0, 0), a.k_cell = k.row;
        a.v = v.data.data() + v.at(b, h / (s.hq / s.hkv), 0, 0), a.v_cell = v.row;
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
  Result plain(float shift) const {
    Result r = fresh();
    std::vector<float> p(static_cast<std::size_t>(s.nk)), acc(static_cast<std::size_t>(s.dv));
    for (int b = 0; b < s.batch; ++b)
      for (int h = 0; h < s.hq; ++h)
        for (int i = 0; i < s.nq; ++i) {
          const int kv = h / (s.hq / s.hkv);
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

  std::size_t place(int b, int h, int i) const {
    return (static_cast<std::size_t>(b) * s.hq + static_cast<std::size_t>(h)) * s.nq + static_cast<std::size_t>(i);
  }

  // Draws of a normal distribution.
  void fill(HostTensor& t) {
    for (int b = 0; b < t.batches; ++b)
      for (int h = 0; h < t.heads; ++h)
        for (int i = 0; i < t.rows; ++i)
          for (int d = 0; d < t.channels; ++d) t.data[t.at(b, h, i, d)] = store(static_cast<float>(rng_.normal()));
  }

  PrefillSpec s;
  HostTensor q, k, v;
  std::vector<std::int32_t> row_ptr, columns, bits;
  std::vector<std::uint32_t> words;

 private:
  Result fresh() const {
    const std::size_t rows = static_cast<std::size_t>(s.batch) * s.hq * s.nq;
    return {std::vector<float>(rows * s.dv), std::vector<float>(rows)};
  }

  // Entries in random order; of an empty_rows list every second query block and the first five have none.
  void make_lists() {
    for (int list = 0; list < list_batches() * lists(); ++list) {
      row_ptr.push_back(static_cast<std::int32_t>(columns.size()));
      for (int block = 0; block < blocks_q(); ++block) {
        std::vector<std::int32_t> named;
        const bool none = s.cover == Cover::nothing || (s.cover == Cover::empty_rows && (block < 5 || block % 2));
        for (int c = 0; c < blocks_k() && !none; ++c)
          if (rng_.uniform() < s.density) named.push_back(c);
        for (std::size_t i = named.size(); i > 1; --i) std::swap(named[i - 1], named[rng_.below(i)]);
        for (const std::int32_t c : named) {
          columns.push_back(c);
          bits.push_back(s.cover == Cover::partial && rng_.below(2) ? add_mask() : -1);
        }
        row_ptr.push_back(static_cast<std::int32_t>(columns.size()));
      }
    }
  }
  std::int32_t add_mask() {
    const std::size_t per_row = s.block_k / 32, old = words.size();
    for (int r = 0; r < s.block_q; ++r) {
      const std::uint64_t kind = rng_.below(4);  // a row that sees nothing, one that sees all, else some
      for (std::size_t w = 0; w < per_row; ++w)
        words.push_back(kind == 0 ? 0u : kind == 1 ? ~0u : static_cast<std::uint32_t>(rng_.next()));
    }
    return static_cast<std::int32_t>(old / per_row) / s.block_q;
  }

  int entry_of(int b, int h, int block, int column) const {
    const int list = (s.lists_of_sequences ? b * lists() : 0) + h / (s.hq / lists());
    const std::size_t at = static_cast<std::size_t>(list) * (blocks_q() + 1) + static_cast<std::size_t>(block);
    for (int e = row_ptr[at]; e < row_ptr[at + 1]; ++e)
      if (columns[e] == column) return e;
    return -1;
  }

  // NaN where no kernel may look: blocks of keys that no list of a KV head names.
  void hide_what_nobody_names() {
    if (s.cover == Cover::dense) return;
    for (int b = 0; b < s.batch; ++b)
      for (int kv = 0; kv < s.hkv; ++kv)
        for (int c = 0; c < blocks_k(); ++c) {
          bool named = false;
          for (int h = kv * (s.hq / s.hkv); h < (kv + 1) * (s.hq / s.hkv); ++h)
            for (int block = 0; block < blocks_q(); ++block) named = named || entry_of(b, h, block, c) >= 0;
          if (named) continue;
          for (int j = c * s.block_k; j < std::min(s.nk, (c + 1) * s.block_k); ++j) {
            std::fill_n(k.data.begin() + k.at(b, kv, j, 0), s.dk, HostTensor::kUntouched);
            std::fill_n(v.data.begin() + v.at(b, kv, j, 0), s.dv, HostTensor::kUntouched);
          }
        }
  }

  Rng rng_;
};

}  // namespace lacuna::test
