// SPDX-License-Identifier: Apache-2.0
// A generated problem for op attend, and the one check every attend kernel must pass:
//   error against the fp64 reference <= 2 x the error of the same formula done plainly in the
//   kernel's own precision (FlashAttention's rule), nothing written outside, same bits again and
//   with another number of workers.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/buffer.h"
#include "base/half.h"
#include "base/rng.h"
#include "engine/packed_tensor.h"
#include "kernel/kernel.h"
#include "kv/element.h"
#include "kv/quantise.h"
#include "op/attend.h"
#include "op/attend_ref.h"
#include "op/pack_ref.h"

namespace lacuna::test {

enum class MaskKind { dense, causal, window, random, nothing };
enum class Lists { shared, per_kv_head, per_head };
enum class Gather { none, some, all };  // how many of the cells are named by gathered tiles

struct AttendSpec {
  int hq = 2, hkv = 1, dk = 64, dv = 64, n_rows = 5;
  std::int64_t n_cells = 100;
  int block_q = 64;
  MaskKind mask = MaskKind::causal;
  Lists lists = Lists::shared;
  Gather gather = Gather::none;
  Dtype kv = Dtype::f16;
  std::optional<Dtype> v = std::nullopt;  // of V, where it is not kv
  bool in_place = false;  // without packed copies
  float spread = 1.0f;    // standard deviation of the logits
  float softcap = 0;
  bool sinks = false, bias = false, slopes = false, resume = false, normalise = true, lse = true;
  bool nan_hidden = false;  // K of cells that nobody sees is NaN, or huge
  bool token_major = false;  // q and out: the heads of a token side by side; else the rows of a head
  std::uint64_t seed = 1;

  // Rounds the head dimensions up to whole blocks.
  void fit_types() {
    if (is_quantised(kv)) dk = (dk + 31) / 32 * 32;
    if (is_quantised(v_type())) dv = (dv + 31) / 32 * 32;
    in_place = in_place && (is_quantised(kv) || is_quantised(v_type()));
  }
  Dtype v_type() const { return v.value_or(kv); }
  Dtype cache() const { return both_in(kv, v_type()); }

  std::string line() const {
    static constexpr const char* kMask[] = {"dense", "causal", "window", "random", "nothing"};
    static constexpr const char* kLists[] = {"shared", "per_kv_head", "per_head"};
    static constexpr const char* kGather[] = {"none", "some", "all"};
    return fmt::format(
        "attend hq={} hkv={} dk={} dv={} nq={} nkv={} block={} mask={} lists={} gather={} kv={} v={} in_place={} spread={} softcap={} sinks={} "
        "bias={} slopes={} resume={} normalise={} lse={} nan_hidden={} token_major={} seed={}",
        hq, hkv, dk, dv, n_rows, n_cells, block_q, kMask[static_cast<int>(mask)],
        kLists[static_cast<int>(lists)], kGather[static_cast<int>(gather)], name_of(kv), name_of(v_type()), in_place, spread, softcap, sinks, bias,
        slopes, resume, normalise, lse, nan_hidden, token_major, seed);
  }
};

// One element; of a quantised type the scale of its block, which is the least that can be changed.
inline void store_as(void* base, Dtype t, std::int64_t at, float x) {
  const float one[32] = {x};  // as long as a block, or g++ 12 warns of what never happens
  if (!is_quantised(t)) return store_elements(base, t, at, one, 1);
  const std::uint16_t scale = float_to_half(x);
  std::memcpy(static_cast<char*>(base) + bytes_of(t, at), &scale, sizeof scale);
}

// What a kernel wrote: out and lse with gaps between and around them, and the resumable state.
struct AttendResult {
  static constexpr std::uint32_t kUntouched = 0x7fc0dead;  // a NaN no arithmetic makes
  std::vector<float> out, lse, m, l, acc;

  bool same_bits(const AttendResult& o) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
    };
    return same(out, o.out) && same(lse, o.lse) && same(m, o.m) && same(l, o.l) && same(acc, o.acc);
  }
};

class AttendCase {
 public:
  explicit AttendCase(const AttendSpec& spec) : s(spec), rng_(spec.seed * 7919 + 17) {
    make_runs();
    make_tensors();
  }

  // Points into this case; `format` none leaves the packed views empty.
  op::Attend::Args args(PackFormat format, Precision precision, AttendResult& r) {
    op::Attend::Args a;
    a.hq = s.hq; a.hkv = s.hkv; a.dk = s.dk; a.dv = s.dv; a.n_rows = s.n_rows; a.n_cells = s.n_cells;
    a.q = q_.data();
    a.q_row = q_row(); a.q_head = q_head();
    a.k = k_.data(); a.v = v_.data();
    a.k_type = s.kv;
    a.v_type = s.v_type();
    a.k_head = s.dk; a.k_cell = static_cast<std::int64_t>(s.hkv) * s.dk;  // heads interleaved in a cell
    a.v_head = s.dv; a.v_cell = static_cast<std::int64_t>(s.hkv) * s.dv;
    if (format != PackFormat::none && !s.in_place) {
      a.packed_k = packed(op::Pack::Role::key, format, packed_k_);
      a.packed_v = packed(op::Pack::Role::value, format, packed_v_);
    }
    a.runs = {s.block_q, s.n_rows, lists(), s.n_cells, row_ptr_.data(), runs_.data(), words_.data(), s.hq / lists()};
    if (s.gather != Gather::none) {
      a.runs.slots = slots_.data();
      a.runs.first_gathered = first_gathered();
    }
    a.precision = precision;
    a.scale = s.spread / std::sqrt(static_cast<float>(s.dk));
    a.softcap = s.softcap;
    if (s.sinks) a.sinks = sinks_.data();
    if (s.bias) {
      a.bias = bias_.data();
      a.bias_row = s.n_cells + 3;
      if (s.slopes) a.slope = slopes_.data();
    }
    const float poison = std::bit_cast<float>(AttendResult::kUntouched);
    r.out.assign(static_cast<std::size_t>(std::max(s.hq * out_head(), s.n_rows * out_row()) + 2 * kGap), poison);
    r.lse.assign(static_cast<std::size_t>(s.hq * s.n_rows + 2 * kGap), poison);
    a.out = r.out.data() + kGap;
    a.out_row = out_row();
    a.out_head = out_head();
    if (s.lse) a.lse = r.lse.data() + kGap;
    if (s.resume) {
      r.m = m0_; r.l = l0_; r.acc = acc0_;
      a.resume = {r.m.data(), r.l.data(), r.acc.data()};
      a.normalise = s.normalise;
    }
    return a;
  }

  bool sees(int head, int row, std::int64_t cell) const {
    return visible_[(static_cast<std::size_t>(list_of(head)) * s.n_rows + row) * tiles() + cell / kTileKeys] >>
               (cell % kTileKeys) & 1u;
  }

  // Whether a tile that holds the cell, packed or gathered, is named for the rows of a block.
  bool reads(int head, int block, std::int64_t cell) const {
    const std::int32_t* list = row_ptr_.data() + list_of(head) * (blocks() + 1) + block;
    for (std::int32_t r = list[0]; r < list[1]; ++r)
      for (std::int32_t t = runs_[r].begin; t < runs_[r].end; ++t) {
        if (t == cell / kTileKeys) return true;
        if (t < first_gathered()) continue;
        const auto from = slots_.begin() + std::int64_t{t - first_gathered()} * kTileKeys;
        if (std::find(from, from + kTileKeys, cell) != from + kTileKeys) return true;
      }
    return false;
  }

  // The same formula in f32 with q, k, v and the probabilities rounded by `round`; no tricks. What a
  // kernel is free to choose changes which numbers are rounded: q is rounded times `factor` (a kernel
  // may fold the scale into it), probabilities relative to the row's maximum + `shift`.
  template <class Round>
  AttendResult plain(Round round, float factor = 1.0f, float shift = 0.0f) {
    AttendResult r;
    op::Attend::Args a = args(PackFormat::none, Precision::fast, r);
    std::vector<float> p(static_cast<std::size_t>(s.n_cells));
    for (int h = 0; h < s.hq; ++h)
      for (int i = 0; i < s.n_rows; ++i) {
        const int kv_head = h / (s.hq / s.hkv);
        const std::int64_t at = static_cast<std::int64_t>(h) * s.n_rows + i;
        float m = s.resume ? m0_[at] : -INFINITY;
        for (std::int64_t c = 0; c < s.n_cells; ++c) {
          if (!sees(h, i, c)) continue;
          float x = 0;
          for (int d = 0; d < s.dk; ++d)
            x += round(a.q[h * a.q_head + i * a.q_row + d] * factor) *
                 round(element(a.k, s.kv, kv_head * a.k_head + c * a.k_cell + d));
          x *= a.scale / factor;
          if (a.softcap > 0) x = a.softcap * std::tanh(x / a.softcap);
          if (a.bias) x += (a.slope ? a.slope[h] : 1.0f) * half_to_float(a.bias[i * a.bias_row + c]);
          p[static_cast<std::size_t>(c)] = x;
          m = std::max(m, x);
        }
        m += shift;
        float l = 0;
        std::vector<float> acc(static_cast<std::size_t>(s.dv), 0.0f);
        if (s.resume && m0_[at] > -INFINITY) {
          const float keep = std::exp(m0_[at] - m);
          l = l0_[at] * keep;
          for (int d = 0; d < s.dv; ++d) acc[d] = acc0_[at * s.dv + d] * keep;
        }
        for (std::int64_t c = 0; c < s.n_cells; ++c) {
          if (!sees(h, i, c) || p[static_cast<std::size_t>(c)] == -INFINITY) continue;
          const float e = std::exp(p[static_cast<std::size_t>(c)] - m);
          l += e;
          for (int d = 0; d < s.dv; ++d)
            acc[d] += round(e) * round(element(a.v, s.v_type(), kv_head * a.v_head + c * a.v_cell + d));
        }
        if (s.resume) {
          r.m[at] = m;
          r.l[at] = l;
          std::copy(acc.begin(), acc.end(), r.acc.begin() + at * s.dv);
          if (!s.normalise) continue;
        }
        float grow = 1;
        if (a.sinks && l > 0) {
          const float top = std::max(m, a.sinks[h]);
          grow = std::exp(m - top);
          l = l * grow + std::exp(a.sinks[h] - top);
          m = top;
        }
        for (int d = 0; d < s.dv; ++d) a.out[h * a.out_head + i * a.out_row + d] = l > 0 ? acc[d] * grow / l : 0.0f;
        if (a.lse) a.lse[at] = l > 0 ? m + std::log(l) : -INFINITY;
      }
    return r;
  }

  AttendResult reference() {
    AttendResult r;
    const op::Attend::Args a = args(PackFormat::none, Precision::high, r);
    for (int h = 0; h < s.hq; ++h)
      for (int i = 0; i < s.n_rows; ++i) op::attend_row_ref(a, h, i);
    return r;
  }

  // Distances between two results. State is compared by what it means: m + log l and acc / l.
  struct Distance {
    double out = 0, lse = 0;
    bool same_shape = true;  // NaN, infinities and untouched places agree
  };
  Distance distance(const AttendResult& x, const AttendResult& y) const {
    Distance d;
    add(x.out, y.out, d.out, d);
    add(x.lse, y.lse, d.lse, d);
    for (std::size_t i = 0; i < x.m.size(); ++i) {
      if ((x.l[i] == 0) != (y.l[i] == 0)) d.same_shape = false;
      if (x.l[i] == 0 || y.l[i] == 0) continue;
      d.lse = std::max<double>(d.lse, std::fabs((x.m[i] + std::log(static_cast<double>(x.l[i]))) -
                                                (y.m[i] + std::log(static_cast<double>(y.l[i])))));
      for (int c = 0; c < s.dv; ++c) {
        const std::size_t at = i * static_cast<std::size_t>(s.dv) + static_cast<std::size_t>(c);
        d.out = std::max<double>(d.out, std::fabs(static_cast<double>(x.acc[at]) / x.l[i] -
                                                  static_cast<double>(y.acc[at]) / y.l[i]));
      }
    }
    return d;
  }

  AttendSpec s;

 private:
  static constexpr std::int64_t kGap = 37;
  std::int64_t tiles() const { return tiles_of(s.n_cells); }
  int lists() const { return s.lists == Lists::shared ? 1 : s.lists == Lists::per_head ? s.hq : s.hkv; }
  int blocks() const { return (s.n_rows + s.block_q - 1) / s.block_q; }
  std::int32_t first_gathered() const { return static_cast<std::int32_t>(tiles()) + 2; }
  int list_of(int head) const { return head / (s.hq / lists()); }
  std::int64_t q_row() const { return s.token_major ? s.hq * q_head() : s.dk + 5; }
  std::int64_t q_head() const { return s.token_major ? s.dk : s.n_rows * q_row() + 7; }
  std::int64_t out_row() const { return s.token_major ? s.hq * out_head() : s.dv + 3; }
  std::int64_t out_head() const { return s.token_major ? s.dv : s.n_rows * out_row() + 11; }

  static void add(const std::vector<float>& x, const std::vector<float>& y, double& worst, Distance& d) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (std::bit_cast<std::uint32_t>(x[i]) == std::bit_cast<std::uint32_t>(y[i]) || x[i] == y[i]) continue;
      if (!std::isfinite(x[i]) || !std::isfinite(y[i])) d.same_shape = false;
      else worst = std::max<double>(worst, std::fabs(static_cast<double>(x[i]) - y[i]));
    }
  }

  // Random numbers per (row block, tile) first: skipped, full or partial tiles all occur.
  void make_runs() {
    const int n_blocks = blocks();
    named_.assign(static_cast<std::size_t>(s.n_cells), false);
    visible_.assign(static_cast<std::size_t>(lists()) * s.n_rows * tiles(), 0u);
    for (int h = 0; h < lists(); ++h)
      for (int b = 0; b < n_blocks; ++b) {
        const int first = b * s.block_q, rows = std::min(s.block_q, s.n_rows - first);
        for (std::int64_t t = 0; t < tiles(); ++t) {
          const int kind = static_cast<int>(rng_.below(4));  // of a random tile: 0 skipped, 1 full, else partial
          const double density = rng_.uniform();
          for (int r = 0; r < rows; ++r) {
            const bool row_blind = rng_.below(8) == 0;
            std::uint32_t w = 0;
            for (int bit = 0; bit < kTileKeys; ++bit) {
              const std::int64_t cell = t * kTileKeys + bit, own = s.n_cells - s.n_rows + first + r;
              bool on = cell < s.n_cells;
              if (s.mask == MaskKind::causal) on = on && cell <= own;
              if (s.mask == MaskKind::window) on = on && cell <= own && (cell < 4 || own - cell < 50);
              if (s.mask == MaskKind::random) on = on && (kind == 1 || (kind > 1 && !row_blind && rng_.uniform() < density));
              if (s.mask == MaskKind::nothing) on = false;
              w |= static_cast<std::uint32_t>(on) << bit;
            }
            visible_[(static_cast<std::size_t>(h) * s.n_rows + first + r) * tiles() + t] = w;
          }
        }
      }
    for (int h = 0; h < lists(); ++h) {
      row_ptr_.push_back(static_cast<std::int32_t>(runs_.size()));
      for (int b = 0; b < n_blocks; ++b) {
        append_block(h, b * s.block_q, std::min(s.block_q, s.n_rows - b * s.block_q));
        row_ptr_.push_back(static_cast<std::int32_t>(runs_.size()));
      }
    }
  }

  std::uint32_t visible(int list, int row, std::int64_t tile) const {
    return visible_[(static_cast<std::size_t>(list) * s.n_rows + row) * tiles() + tile];
  }

  void append_block(int list, int first, int rows) {
    const std::size_t begin = runs_.size();
    std::vector<std::uint32_t> words(static_cast<std::size_t>(s.block_q));
    std::vector<std::int32_t> loose;  // cells for gathered tiles, seen by some row or, now and then, by none
    for (std::int64_t t = 0; t < tiles(); ++t) {
      const std::uint64_t kind = rng_.below(3);  // of a tile in a mixed list: 0 stays, 1 leaves, 2 does so in part
      std::uint32_t leaves = s.gather == Gather::none ? 0 : s.gather == Gather::all || kind == 1 ? ~0u : 0;
      if (s.gather == Gather::some && kind == 2) leaves = static_cast<std::uint32_t>(rng_.below(std::uint64_t{1} << 32));
      std::uint32_t any = 0;
      for (int r = 0; r < rows; ++r) any |= visible(list, first + r, t);
      for (int b = 0; b < kTileKeys; ++b)
        if (leaves >> b & 1u && t * kTileKeys + b < s.n_cells && (any >> b & 1u || rng_.below(32) == 0))
          loose.push_back(static_cast<std::int32_t>(t * kTileKeys + b));
      if (!(any & ~leaves)) continue;
      for (int r = 0; r < rows; ++r) words[static_cast<std::size_t>(r)] = visible(list, first + r, t) & ~leaves;
      for (std::int64_t c = t * kTileKeys; c < std::min(s.n_cells, (t + 1) * kTileKeys); ++c)
        named_[static_cast<std::size_t>(c)] = true;
      append_tile(begin, static_cast<std::int32_t>(t), words, rows);
    }
    for (std::size_t i = loose.size(); i > 1; --i) std::swap(loose[i - 1], loose[rng_.below(i)]);
    for (std::size_t at = 0; at < loose.size(); at += kTileKeys) {
      const auto tile = first_gathered() + static_cast<std::int32_t>(slots_.size() / kTileKeys);
      std::fill(words.begin(), words.end(), 0u);
      for (std::size_t b = 0; b < kTileKeys; ++b) {
        const std::int32_t cell = at + b < loose.size() ? loose[at + b] : -1;
        slots_.push_back(cell);
        if (cell < 0) continue;
        named_[static_cast<std::size_t>(cell)] = true;
        for (int r = 0; r < rows; ++r)
          words[static_cast<std::size_t>(r)] |= (visible(list, first + r, cell / kTileKeys) >> (cell % kTileKeys) & 1u) << b;
      }
      append_tile(begin, tile, words, rows);
    }
  }

  void append_tile(std::size_t list_begin, std::int32_t tile, const std::vector<std::uint32_t>& words, int rows) {
    const bool full = std::all_of(words.begin(), words.begin() + rows, [](std::uint32_t w) { return w == ~0u; });
    if (full && rng_.below(16) != 0) {  // now and then a full tile is told as a partial one
      if (runs_.size() > list_begin && runs_.back().bits < 0 && runs_.back().end == tile) ++runs_.back().end;
      else runs_.push_back({tile, tile + 1, -1});
      return;
    }
    runs_.push_back({tile, tile + 1, static_cast<std::int32_t>(words_.size() / static_cast<std::size_t>(s.block_q))});
    for (int r = 0; r < s.block_q; ++r) words_.push_back(r < rows ? words[static_cast<std::size_t>(r)] : 0u);
  }

  void make_tensors() {
    const auto normal = [&] { return static_cast<float>(rng_.normal()); };
    q_.assign(static_cast<std::size_t>(std::max(s.hq * q_head(), s.n_rows * q_row())), NAN);
    for (int h = 0; h < s.hq; ++h)
      for (int i = 0; i < s.n_rows; ++i)
        for (int d = 0; d < s.dk; ++d) q_[static_cast<std::size_t>(h * q_head() + i * q_row() + d)] = normal();
    const std::int64_t nk = s.n_cells * s.hkv * s.dk, nv = s.n_cells * s.hkv * s.dv;
    const auto fill = [&](std::vector<unsigned char>& to, Dtype t, std::int64_t n, float mean) {
      std::vector<float> x(static_cast<std::size_t>(n));
      for (float& e : x) e = normal() + mean;
      to.resize(static_cast<std::size_t>(bytes_of(t, n)));
      store_elements(to.data(), t, 0, x.data(), n);
    };
    fill(k_, s.kv, nk, 0.0f);
    fill(v_, s.v_type(), nv, 0.5f);
    if (s.nan_hidden)
      for (std::int64_t c = 0; c < s.n_cells; ++c) {
        bool seen = false;
        for (int h = 0; h < s.hq; ++h)
          for (int i = 0; i < s.n_rows; ++i) seen = seen || sees(h, i, c);
        if (!seen)
          for (std::int64_t d = 0; d < s.hkv * s.dk; ++d)
            store_as(k_.data(), s.kv, c * s.hkv * s.dk + d, c % 2 ? NAN : 3e4f * (d % 2 ? 1.0f : -1.0f));
      }
    for (std::int64_t c = 0; c < s.n_cells; ++c) {  // what no list names may be anything
      if (named_[static_cast<std::size_t>(c)]) continue;
      for (std::int64_t d = 0; d < s.hkv * s.dk; ++d) store_as(k_.data(), s.kv, c * s.hkv * s.dk + d, NAN);
      for (std::int64_t d = 0; d < s.hkv * s.dv; ++d) store_as(v_.data(), s.v_type(), c * s.hkv * s.dv + d, NAN);
    }
    for (int h = 0; h < s.hq; ++h) {
      sinks_.push_back(2 * normal());
      slopes_.push_back(std::exp2(-static_cast<float>(h + 1)));
    }
    if (s.bias) {
      bias_.resize(static_cast<std::size_t>(s.n_rows) * (s.n_cells + 3));
      for (auto& b : bias_) b = rng_.below(16) == 0 ? 0xfc00 : float_to_half(-2 * std::fabs(normal()));
    }
    if (s.resume) {
      const std::size_t rows = static_cast<std::size_t>(s.hq) * s.n_rows;
      for (std::size_t i = 0; i < rows; ++i) {
        const bool fresh = rng_.below(4) == 0;
        m0_.push_back(fresh ? -INFINITY : 3 * normal());
        l0_.push_back(fresh ? 0.0f : 1 + static_cast<float>(rng_.uniform()) * 10);
        for (int d = 0; d < s.dv; ++d) acc0_.push_back(fresh ? 0.0f : l0_.back() * normal());
      }
    }
  }

  PackedView packed(op::Pack::Role role, PackFormat format, Buffer& storage) {
    const bool key = role == op::Pack::Role::key;
    PackedView view{nullptr, format, s.hkv, key ? s.dk : s.dv, s.n_cells};
    const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles() * s.hkv);
    view.data = storage.grow(bytes + 64);
    std::memset(storage.data(), 0, bytes);
    op::Pack::Args a;
    a.role = role;
    a.dtype = key ? s.kv : s.v_type();
    a.raw = key ? k_.data() : v_.data();
    a.head = view.dim;
    a.cell = static_cast<std::int64_t>(s.hkv) * view.dim;
    a.n = s.n_cells;
    a.format = format;
    a.heads = s.hkv;
    a.dim = view.dim;
    a.packed = storage.data();
    op::pack_ref(a);
    return view;
  }

  Rng rng_;
  std::vector<std::uint32_t> visible_, words_;  // visible_: [lists][n_rows][tiles]
  std::vector<std::int32_t> row_ptr_, slots_;
  std::vector<bool> named_;  // cells in tiles of any list
  std::vector<TileRun> runs_;
  std::vector<float> q_, sinks_, slopes_, m0_, l0_, acc0_;
  std::vector<unsigned char> k_, v_;
  std::vector<std::uint16_t> bias_;
  Buffer packed_k_, packed_v_;
};

inline AttendResult run_attend(const kernel::Kernel<op::Attend>& k, AttendCase& c, Precision precision, ParallelFor& parallel,
                               Workspace& space) {
  AttendResult r;
  const op::Attend::Args a = c.args(format_for(k, c.s.cache()), precision, r);
  run_kernel(k, a, parallel, space);
  return r;
}

// What FlashAttention's rule allows a kernel: twice the error of plain arithmetic in its number types
// (the worst of four ways to place the roundings: small cases draw few), and a tiny rest.
inline AttendCase::Distance allowed_error(const kernel::Kernel<op::Attend>& k, AttendCase& c, const AttendResult& want) {
  const bool bf16 = k.pack == PackFormat::pair16_bf16;
  AttendCase::Distance d;
  const float base2 = c.s.spread / std::sqrt(static_cast<float>(c.s.dk)) * 1.442695f;
  for (const auto& [factor, shift] : {std::pair{1.0f, 0.0f}, {base2, 0.3f}, {1.3f, 0.55f}, {0.8f, 0.85f}}) {
    const auto one = c.distance(bf16 ? c.plain([](float x) { return bf16_to_float(float_to_bf16(x)); }, factor, shift)
                                     : c.plain([](float x) { return x; }, factor, shift), want);
    d.out = std::max(d.out, one.out);
    d.lse = std::max(d.lse, one.lse);
  }
  const double tiny = bf16 ? 1e-3 : 4e-6, times = c.s.softcap > 0 ? 3 : 2;  // 3: as the rule has it
  d.out = times * d.out + tiny;
  d.lse = times * d.lse + tiny;
  return d;
}

// In how many of the precisions the kernel takes the case; in the others nothing is checked. The truth and the bound, most of
// the work, are the same for all of them.
inline int check_attend(const kernel::Kernel<op::Attend>& k, const AttendSpec& spec, std::initializer_list<Precision> precisions) {
  AttendCase c(spec);
  std::optional<AttendResult> want;
  AttendCase::Distance allowed;
  int taken = 0;
  static const auto one = make_thread_pool(1);
  static const auto three = make_thread_pool(3);
  static Workspace space;
  for (const Precision precision : precisions) {
    AttendResult unused;
    const op::Attend::Args probe = c.args(format_for(k, spec.cache()), precision, unused);
    if (k.why_not && k.why_not(probe, 1)) continue;
    ++taken;
    // Scratch holds anything at the start: make that the worst thing.
    std::memset(space.scratch.grow(1), 0xff, space.scratch.bytes());
    std::memset(space.shared.grow(1), 0xff, space.shared.bytes());
    const AttendResult got = run_attend(k, c, precision, *one, space);
    EXPECT_TRUE(got.same_bits(run_attend(k, c, precision, *one, space))) << k.name << " twice: " << spec.line();
    EXPECT_TRUE(got.same_bits(run_attend(k, c, precision, *three, space))) << k.name << " 1 or 3 workers: " << spec.line();

    if (!want) {
      want = c.reference();
      allowed = allowed_error(k, c, *want);
    }
    const auto error = c.distance(got, *want);
    EXPECT_TRUE(error.same_shape) << k.name << " NaN, infinity, or written where it should not: " << spec.line();
    EXPECT_LE(error.out, allowed.out) << k.name << " out: " << spec.line();
    EXPECT_LE(error.lse, allowed.lse) << k.name << " lse: " << spec.line();
  }
  return taken;
}
inline bool check_attend(const kernel::Kernel<op::Attend>& k, const AttendSpec& spec, Precision precision) {
  return check_attend(k, spec, {precision}) > 0;
}

}  // namespace lacuna::test
