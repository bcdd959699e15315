// SPDX-License-Identifier: Apache-2.0
// MethodLab: what a test of one method needs. Random q, k, v of one sequence, packed keys and side data, an
// AttentionView over any range of rows, the method by its entry, and attention in double precision
// over whatever a plan keeps, element by element.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/rng.h"
#include "engine/side.h"
#include "method/method.h"
#include "op/alike_ref.h"
#include "op/attend_maxima_ref.h"
#include "op/keep_mass_ref.h"
#include "op/line_sums_ref.h"
#include "op/pack_ref.h"
#include "op/range_sums_ref.h"
#include "op/segment_mass_ref.h"
#include "op/side_scores_ref.h"
#include "op/side_write_ref.h"
#include "op/strided_scores.h"
#include "op/strided_scores_ref.h"
#include "op/top_weights_ref.h"

namespace lacuna::test {

// Runs ops by their references, on one thread.
class RefContext final : public Context, private ParallelFor {
 public:
  void* scratch(int slot, std::size_t bytes) override {
    if (slot >= static_cast<int>(slots_.size())) slots_.resize(static_cast<std::size_t>(slot) + 1);
    return slots_[static_cast<std::size_t>(slot)].grow(bytes + 64);
  }
  ParallelFor& threads() override { return *this; }
  void add_time(Verb verb, double) override { ++timed[static_cast<int>(verb)]; }
  int timed[kVerbs] = {};  // scopes that ended, by verb
  int scored_heads = 0;    // query heads that scores were made for

 private:
  int workers() const override { return 1; }
  void run(int n, void (*task)(void*, int, int), void* context) override {
    for (int i = 0; i < n; ++i) task(context, i, 0);
  }
  void run_op(const char* op, const void* args) override {
    if (const auto* s = as<op::StridedScores>(op, args)) scored_heads += s->hq;
    if (const auto* s = as<op::LineSums>(op, args)) scored_heads += s->hq;
    if (const auto* s = as<op::StridedScores>(op, args))
      for (int h = 0; h < s->hq; ++h)
        for (std::int64_t m = 0; m < s->m_rows(); ++m) op::strided_scores_row_ref(*s, h, m);
    if (const auto* s = as<op::PageScores>(op, args))
      for (int g = 0; g < s->hkv; ++g) op::page_scores_ref(*s, g);
    if (const auto* s = as<op::LabelScores>(op, args))
      for (int g = 0; g < s->hkv; ++g) op::label_scores_ref(*s, g);
    if (const auto* s = as<op::Int4Scores>(op, args))
      for (int g = 0; g < s->hkv; ++g) op::int4_scores_ref(*s, g);
    if (const auto* s = as<op::Int8Scores>(op, args))
      for (int g = 0; g < s->hkv; ++g) op::int8_scores_ref(*s, g);
    if (const auto* s = as<op::KeepMass>(op, args))
      for (int r = 0; r < s->rows; ++r) op::keep_mass_row_ref(*s, r);
    if (const auto* s = as<op::TopWeights>(op, args))
      for (int r = 0; r < s->rows; ++r) op::top_weights_row_ref(*s, r);
    if (const auto* s = as<op::LineSums>(op, args))
      for (int h = 0; h < s->hq; ++h) op::line_sums_head_ref(*s, h);
    if (const auto* s = as<op::SegmentMass>(op, args))
      for (int i = 0; i < s->heads * s->groups; ++i) op::segment_mass_group_ref(*s, i / s->groups, i % s->groups);
    if (const auto* s = as<op::Alike>(op, args))
      for (int h = 0; h < s->heads; ++h) op::alike_head_ref(*s, h);
    if (const auto* s = as<op::RangeSums>(op, args))
      for (int r = 0; r < s->ranges; ++r) op::range_sums_ref(*s, r);
    if (const auto* s = as<op::Pack>(op, args)) op::pack_ref(*s);
    if (const auto* s = as<op::AttendMaxima>(op, args))
      for (int g = 0; g < s->hkv; ++g) op::attend_maxima_group_ref(*s, g);
  }
  template <class Op>
  static const typename Op::Args* as(const char* op, const void* args) {
    return std::strcmp(op, Op::kName) == 0 ? static_cast<const typename Op::Args*>(args) : nullptr;
  }
  std::vector<Buffer> slots_;
};

struct MethodLab : private KeyOrder {
  int hq, hkv, d;
  std::int64_t n;
  std::vector<float> q, k, v;  // [hq][n][d], [hkv][n][d], [hkv][n][d]
  RefContext context;
  int n_layers = 4;
  std::int64_t prompt_tokens = -1;

  MethodLab(int hq_, int hkv_, std::int64_t n_, int d_, std::uint64_t seed = 1) : hq(hq_), hkv(hkv_), d(d_), n(n_) {
    Rng rng(seed);
    for (auto* t : {&q, &k, &v}) {
      t->resize(static_cast<std::size_t>((t == &q ? hq : hkv) * n * d));
      for (float& x : *t) x = static_cast<float>(rng.normal());
    }
  }
  float* q_at(int h, std::int64_t i) { return &q[static_cast<std::size_t>((h * n + i) * d)]; }
  float* k_at(int h, std::int64_t j) { return &k[static_cast<std::size_t>((h * n + j) * d)]; }
  float* v_at(int h, std::int64_t j) { return &v[static_cast<std::size_t>((h * n + j) * d)]; }
  double logit(int h, std::int64_t i, std::int64_t j) {
    double s = 0;
    for (int c = 0; c < d; ++c) s += static_cast<double>(q_at(h, i)[c]) * k_at(h / (hq / hkv), j)[c];
    return s / std::sqrt(static_cast<double>(d));
  }

  // Rows [begin, end) as one call of `layer`; keys beyond the last row's own do not exist yet. Key j lies
  // in cell j.
  AttentionView view(std::int64_t begin, std::int64_t end, int layer = 0, const SideSpec& side = {}) {
    AttentionView x;
    x.layer = layer;
    x.n_layers = n_layers;
    x.phase = end - begin == 1 ? Phase::decode : Phase::prefill;
    x.grid = {hq, static_cast<std::int32_t>(end - begin), end, begin};
    x.hkv = hkv;
    x.dk = d;
    x.scale = 1.0f / std::sqrt(static_cast<float>(d));
    x.prompt_tokens = prompt_tokens;
    x.q = q_at(0, begin);
    x.q_head = n * d;
    x.q_row = d;
    packed_view_ = pack();
    x.keys = this;
    x.k = {k.data(), Dtype::f32, n * d, d, d, 0, nullptr};
    x.v = {v.data(), Dtype::f32, n * d, d, d, 0, nullptr};
    side_.open(side, Dtype::f32, n, hkv, d);
    op::SideWrite::Args w = side_args(contiguous(k.data(), Dtype::f32, 1, hkv, n, d), side_.view());
    w.n = w.cells = end;
    op::side_write_ref(w);
    segment_ = {};
    segment_.row_end = x.grid.n_rows;
    segment_.n_keys = end;
    const std::int64_t visible_row = tiles_of(n);
    words_.assign(static_cast<std::size_t>(x.grid.n_rows * visible_row), 0);
    for (std::int64_t i = begin; i < end; ++i) {
      segment_.key_of_row.push_back(static_cast<std::int32_t>(i));
      for (std::int64_t t = 0; t < visible_row; ++t)
        words_[static_cast<std::size_t>((i - begin) * visible_row + t)] = bits_between(t * kTileKeys, 0, i + 1);
    }
    x.cells = {.n = n,  // cell c holds key c
               .visible = words_.data(),
               .visible_row = visible_row,
               .own = begin,
               .segment = &segment_,
               .side = side_.view()};
    return x;
  }
  Result<Plan> plan(const Method& m, std::int64_t begin, std::int64_t end, int layer = 0) {
    return m.plan(view(begin, end, layer, m.side(layer)), context);
  }

  // Attention of row i (a key number) of head h over the keys that `keeps`, in double precision.
  std::vector<double> attend(int h, std::int64_t i, const std::function<bool(std::int64_t)>& keeps) {
    std::vector<double> out(static_cast<std::size_t>(d), 0.0);
    double sum = 0;
    for (std::int64_t j = 0; j <= i; ++j) {
      if (!keeps(j)) continue;
      const double p = std::exp(logit(h, i, j));
      sum += p;
      for (int c = 0; c < d; ++c) out[static_cast<std::size_t>(c)] += p * v_at(h / (hq / hkv), j)[c];
    }
    for (double& x : out) x = sum > 0 ? x / sum : 0;
    return out;
  }

 private:
  OrderedKeys ordered() override { return {packed_view_, 0}; }
  PackedView pack() {
    PackedView view{nullptr, PackFormat::lane16_f32, hkv, d, n};
    const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(n) * hkv);
    view.data = packed_.grow(bytes + 64);
    std::memset(packed_.data(), 0, bytes);
    op::Pack::Args a;
    a.role = op::Pack::Role::key;
    a.dtype = Dtype::f32;
    a.raw = k.data();
    a.head = n * d;
    a.cell = d;
    a.n = n;
    a.format = view.format;
    a.heads = hkv;
    a.dim = d;
    a.packed = packed_.data();
    op::pack_ref(a);
    return view;
  }
  Buffer packed_;
  PackedView packed_view_;
  SideStore side_;
  Segment segment_;
  std::vector<std::uint32_t> words_;
};

// Sets parameters by name, as a spec does, without the range checks.
class SetParam final : public ParamVisitor {
 public:
  SetParam(std::string_view name, double value) : name_(name), value_(value) {}
  void operator()(std::int64_t& x, std::string_view name, std::int64_t, std::int64_t, std::string_view) override {
    if (name == name_) x = static_cast<std::int64_t>(value_), found = true;
  }
  void operator()(double& x, std::string_view name, double, double, std::string_view, bool) override {
    if (name == name_) x = value_, found = true;
  }
  void operator()(bool& x, std::string_view name, std::string_view) override {
    if (name == name_) x = value_ != 0, found = true;
  }
  void operator()(std::string&, std::string_view, std::string_view, std::string_view) override {}
  bool found = false;

 private:
  std::string_view name_;
  double value_;
};

// A method with some parameters set; nullptr if one of the names is unknown.
inline std::unique_ptr<Method> make(const MethodEntry& entry,
                                    std::initializer_list<std::pair<const char*, double>> values = {}) {
  auto m = entry.make();
  for (const auto& [name, value] : values) {
    SetParam set(name, value);
    m->params(set);
    if (!set.found) return nullptr;
  }
  return m;
}

using lacuna::is_dense;

// Whether a plan keeps (head, row, key): the pattern's own ground truth. Cells are numbered as keys.
inline bool keeps(const Plan& p, const Grid& g, std::int32_t h, std::int32_t i, std::int64_t j) {
  const Route r = p.route(h);
  if (r < 0) return r == kRouteFull;
  return std::visit([&](const auto& pattern) { return pattern.keeps(g, h, i, j); }, p.patterns[static_cast<std::size_t>(r)]);
}

}  // namespace lacuna::test
