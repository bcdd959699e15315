// SPDX-License-Identifier: Apache-2.0
// A generated problem for op attend_grad, made from one for op attend, and the check every kernel must pass: the
// error of each gradient against the fp64 reference is at most twice (three times with a soft-cap) that of the same
// formulas done plainly in the kernel's own number types; nothing is written outside.
#pragma once

#include <array>

#include "engine/pick.h"
#include "op/attend_grad.h"
#include "op/attend_grad_ref.h"
#include "pattern/invert.h"
#include "support/attend_case.h"

namespace lacuna::test {

enum class KeyBias { none, by_kv_head, by_head };

struct GradSpec {
  AttendSpec a;
  bool d_lse = false, give_delta = false;
  KeyBias bias = KeyBias::none;
  std::string line() const {
    return fmt::format("grad d_lse={} delta={} bias={} of {}", d_lse, give_delta, static_cast<int>(bias), a.line());
  }
};

// dq, dk, dv with gaps between rows and around all, then d_key_bias and d_sinks.
struct Grads {
  static constexpr const char* kName[5] = {"dq", "dk", "dv", "d_key_bias", "d_sinks"};
  std::array<std::vector<float>, 5> x;
  bool same_bits(const Grads& o) const {
    const auto same = [](float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); };
    for (std::size_t t = 0; t < x.size(); ++t)
      if (!std::equal(x[t].begin(), x[t].end(), o.x[t].begin(), o.x[t].end(), same)) return false;
    return true;
  }
};

class GradCase {
 public:
  explicit GradCase(const GradSpec& spec) : s(spec), c_(spec.a) {
    forward_ = c_.args(PackFormat::none, Precision::fast, result_);
    for (int h = 0; h < s.a.hq; ++h)
      for (int i = 0; i < s.a.n_rows; ++i) op::attend_row_ref(forward_, h, i);
    Rng rng(spec.a.seed * 31 + 5);
    g_row_ = s.a.dv + 1;
    g_.assign(static_cast<std::size_t>(s.a.hq * s.a.n_rows * g_row_), NAN);
    for (std::int64_t r = 0; r < std::int64_t{s.a.hq} * s.a.n_rows; ++r) {
      const bool empty = forward_.lse[r] == -INFINITY;
      for (int d = 0; d < s.a.dv; ++d)
        g_[static_cast<std::size_t>(r * g_row_ + d)] = empty ? NAN : static_cast<float>(rng.normal());
      d_lse_.push_back(empty ? NAN : static_cast<float>(rng.normal()));
      double delta = 0;
      const float* out = forward_.out + r / s.a.n_rows * forward_.out_head + r % s.a.n_rows * forward_.out_row;
      for (int d = 0; d < s.a.dv; ++d)
        delta += static_cast<double>(out[d]) * g_[static_cast<std::size_t>(r * g_row_ + d)];
      delta_.push_back(static_cast<float>(delta));
    }
    invert(forward_.runs, inverse_);
  }

  op::AttendGrad::Args args(Precision precision, Grads& r) {
    const AttendSpec& f = s.a;
    op::AttendGrad::Args a;
    a.forward = forward_;
    a.forward.precision = precision;
    a.inverse = inverse_.view;
    a.d_out = g_.data();
    a.d_out_row = g_row_;
    a.d_out_head = f.n_rows * g_row_;
    if (s.d_lse) a.d_lse = d_lse_.data();
    if (s.give_delta) {
      a.delta = delta_.data();
      a.forward.out = nullptr;
    }
    const float poison = std::bit_cast<float>(AttendResult::kUntouched);
    const auto tensor = [&](std::size_t t, std::int64_t n) {
      r.x[t].assign(static_cast<std::size_t>(n) + 2 * kGap, poison);
      return r.x[t].data() + kGap;
    };
    a.d_q_row = f.dk + 3;
    a.d_q_head = f.n_rows * a.d_q_row + 5;
    a.d_q = tensor(0, f.hq * a.d_q_head);
    a.d_k_head = f.dk + 1;  // the heads of a cell side by side
    a.d_k_cell = f.hkv * a.d_k_head + 2;
    a.d_k = tensor(1, f.n_cells * a.d_k_cell);
    a.d_v_cell = f.dv;
    a.d_v_head = f.n_cells * a.d_v_cell + 9;
    a.d_v = tensor(2, f.hkv * a.d_v_head);
    if (s.bias != KeyBias::none) {
      a.bias_heads = s.bias == KeyBias::by_head ? f.hq : f.hkv;
      a.d_key_bias = tensor(3, a.bias_heads * f.n_cells);
    }
    if (f.sinks) a.d_sinks = tensor(4, f.hq);
    return a;
  }

  Grads reference() {
    Grads r;
    const op::AttendGrad::Args a = args(Precision::high, r);
    for (int h = 0; h < s.a.hkv; ++h) op::attend_grad_ref(a, h);
    return r;
  }

  // The formulas in f32, operands of products rounded by `round`, no tricks; q rounded times `factor`, p and ds
  // times `shift`: a kernel is free to choose those.
  template <class Round>
  Grads plain(Round round, float factor, float shift) {
    Grads result;
    const op::AttendGrad::Args a = args(Precision::fast, result);
    const op::Attend::Args& f = a.forward;
    const auto n = static_cast<std::size_t>(f.n_cells);
    const auto dk = static_cast<std::size_t>(f.dk), dv = static_cast<std::size_t>(f.dv);
    for (int kv = 0; kv < f.hkv; ++kv) {
      std::vector<float> k(n * dk), v(n * dv), d_k(n * dk), d_v(n * dv), bias(n), q(dk), g(dv);
      for (std::size_t c = 0; c < n; ++c) {
        for (std::size_t d = 0; d < dk; ++d)
          k[c * dk + d] = round(element(f.k, f.k_type, at(kv * f.k_head, c, f.k_cell, d)));
        for (std::size_t d = 0; d < dv; ++d)
          v[c * dv + d] = round(element(f.v, f.v_type, at(kv * f.v_head, c, f.v_cell, d)));
      }
      for (int h = kv * (f.hq / f.hkv); h < (kv + 1) * (f.hq / f.hkv); ++h) {
        if (s.bias == KeyBias::by_head) std::fill(bias.begin(), bias.end(), 0.0f);
        float d_sink = 0;
        for (int i = 0; i < f.n_rows; ++i) {
          const std::int64_t row = std::int64_t{h} * f.n_rows + i;
          const float* q_raw = f.q + h * f.q_head + i * f.q_row;
          const float* g_raw = a.d_out + h * a.d_out_head + i * a.d_out_row;
          std::vector<float> d_q(dk);
          if (f.lse[row] > -INFINITY) {
            float rest = 0;
            for (std::size_t d = 0; d < dv; ++d) {
              g[d] = round(g_raw[d]);
              rest -= a.delta ? 0 : g_raw[d] * f.out[h * f.out_head + i * f.out_row + static_cast<std::int64_t>(d)];
            }
            if (a.delta) rest = -a.delta[row];
            if (a.d_lse) rest += a.d_lse[row];
            for (std::size_t c = 0; c < n; ++c) {
              if (!c_.sees(h, i, static_cast<std::int64_t>(c))) continue;
              float x = 0, y = 0, slope = 1;
              for (std::size_t d = 0; d < dk; ++d) x += round(q_raw[d] * factor) * k[c * dk + d];
              for (std::size_t d = 0; d < dv; ++d) y += g[d] * v[c * dv + d];
              x *= f.scale / factor;
              if (f.softcap > 0) {
                const float t = std::tanh(x / f.softcap);
                x = f.softcap * t;
                slope = 1 - t * t;
              }
              const float p = std::exp(x - f.lse[row]), e = p * (y + rest);
              const float p_round = round(p * shift) / shift, ds = round(e * slope * shift) / shift;
              for (std::size_t d = 0; d < dk; ++d) {
                d_q[d] += ds * k[c * dk + d];
                d_k[c * dk + d] += ds * round(q_raw[d]);
              }
              for (std::size_t d = 0; d < dv; ++d) d_v[c * dv + d] += p_round * g[d];
              bias[c] += e;
            }
            if (f.sinks) d_sink += std::exp(f.sinks[h] - f.lse[row]) * rest;
          }
          for (std::size_t d = 0; d < dk; ++d)
            a.d_q[at(h * a.d_q_head, static_cast<std::size_t>(i), a.d_q_row, d)] = f.scale * d_q[d];
        }
        if (f.sinks) a.d_sinks[h] = d_sink;
        if (s.bias == KeyBias::by_head) std::copy(bias.begin(), bias.end(), a.d_key_bias + h * f.n_cells);
      }
      if (s.bias == KeyBias::by_kv_head) std::copy(bias.begin(), bias.end(), a.d_key_bias + kv * f.n_cells);
      for (std::size_t c = 0; c < n; ++c) {
        for (std::size_t d = 0; d < dk; ++d) a.d_k[at(kv * a.d_k_head, c, a.d_k_cell, d)] = f.scale * d_k[c * dk + d];
        for (std::size_t d = 0; d < dv; ++d) a.d_v[at(kv * a.d_v_head, c, a.d_v_cell, d)] = d_v[c * dv + d];
      }
    }
    return result;
  }

  bool sees(int head, int row, std::int64_t cell) const { return c_.sees(head, row, cell); }
  bool reads(int head, int block, std::int64_t cell) const { return c_.reads(head, block, cell); }

  GradSpec s;
  std::vector<float> g_, d_lse_, delta_;
  std::int64_t g_row_ = 0;

 private:
  static constexpr std::int64_t kGap = 41;
  static std::int64_t at(std::int64_t base, std::size_t i, std::int64_t step, std::size_t d) {
    return base + static_cast<std::int64_t>(i) * step + static_cast<std::int64_t>(d);
  }
  AttendCase c_;
  AttendResult result_;
  op::Attend::Args forward_;
  InvertedRuns inverse_;
};

// Greatest distances per gradient. same_shape: NaN, infinities and untouched places agree.
struct GradDistance {
  double worst[5] = {}, size[5] = {};
  bool same_shape = true;
  GradDistance(const Grads& got, const Grads& want) {
    for (std::size_t t = 0; t < 5; ++t)
      for (std::size_t i = 0; i < want.x[t].size(); ++i) {
        const float x = got.x[t][i], y = want.x[t][i];
        if (std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y)) {
          if (std::isfinite(y)) size[t] = std::max<double>(size[t], std::fabs(y));
          continue;
        }
        if (!std::isfinite(x) || !std::isfinite(y)) {
          same_shape = false;
          continue;
        }
        size[t] = std::max<double>(size[t], std::fabs(y));
        worst[t] = std::max(worst[t], std::fabs(static_cast<double>(x) - y));
      }
  }
};

inline bool computes_in_bf16(const kernel::Kernel<op::AttendGrad>& k) { return (k.needs & kAvx512Bf16) != 0; }

struct GradBound {
  double allowed[5] = {};
  GradBound(const kernel::Kernel<op::AttendGrad>& k, GradCase& c, const Grads& want) {
    const bool bf16 = computes_in_bf16(k);
    const double times = c.s.a.softcap > 0 ? 3 : 2, tiny = bf16 ? 1e-3 : 4e-6;
    for (const auto& [factor, shift] : {std::pair{1.0f, 1.0f}, {1.3f, 0.85f}, {0.8f, 1.4f}, {0.11f, 1.2f}}) {
      const Grads one = bf16 ? c.plain([](float x) { return bf16_to_float(float_to_bf16(x)); }, factor, shift)
                             : c.plain([](float x) { return x; }, factor, shift);
      const GradDistance d(one, want);
      for (int t = 0; t < 5; ++t) allowed[t] = std::max(allowed[t], times * d.worst[t] + tiny * (1 + d.size[t]));
    }
  }
};

inline Grads run_grad(const kernel::Kernel<op::AttendGrad>& k, GradCase& c, Precision precision, int workers) {
  static const std::unique_ptr<ParallelFor> pools[] = {make_thread_pool(1), make_thread_pool(2), make_thread_pool(5)};
  static Workspace space;
  std::memset(space.scratch.grow(1), 0xff,
              space.scratch.bytes());  // what memory holds at the start is nothing to rely on
  std::memset(space.shared.grow(1), 0xff, space.shared.bytes());
  Grads r;
  const op::AttendGrad::Args a = c.args(precision, r);
  run_kernel(k, a, *pools[workers == 1 ? 0 : workers == 2 ? 1 : 2], space);
  return r;
}

// False if the kernel refuses the case (nothing was checked then).
inline int check_grad(const kernel::Kernel<op::AttendGrad>& k, const GradSpec& spec, std::initializer_list<Precision> precisions) {
  GradCase c(spec);
  std::optional<Grads> want;
  std::optional<GradBound> bound;
  int taken = 0;
  for (const Precision precision : precisions) {
    Grads unused;
    if (k.why_not && k.why_not(c.args(precision, unused), 1)) continue;
    ++taken;
    if (!want) {
      want = c.reference();
      bound.emplace(k, c, *want);
    }
    for (const int workers : {1, 2, 5}) {
      const Grads got = run_grad(k, c, precision, workers);
      EXPECT_TRUE(got.same_bits(run_grad(k, c, precision, workers)))
          << k.name << " twice, " << workers << " workers: " << spec.line();
      const GradDistance d(got, *want);
      EXPECT_TRUE(d.same_shape) << k.name << " NaN, infinity, or written where it should not: " << spec.line();
      for (int t = 0; t < 5; ++t)
        EXPECT_LE(d.worst[t], bound->allowed[t])
            << k.name << " " << Grads::kName[t] << ", " << workers << " workers: " << spec.line();
    }
  }
  return taken;
}

}  // namespace lacuna::test
