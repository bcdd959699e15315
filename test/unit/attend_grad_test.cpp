// SPDX-License-Identifier: Apache-2.0
// Op attend_grad: the reference against differences of forward, and every kernel of this machine against the reference.
#include <gtest/gtest.h>

#include <numeric>

#include "base/machine.h"
#include "support/attend_grad_case.h"
#include "support/thin.h"

namespace lacuna::test {
namespace {

// Forward in double over a case's own tensors, which can be changed: the loss G . out + g . lse.
struct Loss {
  GradCase& c;
  op::AttendGrad::Args a;
  std::vector<double> q, k, v, bias, sinks;  // bias [hq][n_cells]

  Loss(GradCase& grad_case, Grads& unused) : c(grad_case), a(c.args(Precision::high, unused)) {
    const op::Attend::Args& f = a.forward;
    for (int h = 0; h < f.hq; ++h)
      for (int i = 0; i < f.n_rows; ++i)
        for (int d = 0; d < f.dk; ++d) q.push_back(f.q[h * f.q_head + i * f.q_row + d]);
    for (int h = 0; h < f.hkv; ++h)
      for (std::int64_t n = 0; n < f.n_cells; ++n) {
        for (int d = 0; d < f.dk; ++d) k.push_back(element(f.k, f.k_type, h * f.k_head + n * f.k_cell + d));
        for (int d = 0; d < f.dv; ++d) v.push_back(element(f.v, f.v_type, h * f.v_head + n * f.v_cell + d));
      }
    bias.resize(static_cast<std::size_t>(f.hq * f.n_cells));
    for (int h = 0; f.sinks && h < f.hq; ++h) sinks.push_back(f.sinks[h]);
  }

  double operator()() const {
    const op::Attend::Args& f = a.forward;
    double loss = 0;
    for (int h = 0; h < f.hq; ++h)
      for (int i = 0; i < f.n_rows; ++i) {
        std::vector<double> s, out(static_cast<std::size_t>(f.dv));
        std::vector<std::int64_t> cells;
        const std::int64_t kv = h / (f.hq / f.hkv), row = std::int64_t{h} * f.n_rows + i;
        for (std::int64_t n = 0; n < f.n_cells; ++n) {
          if (!c.sees(h, i, n)) continue;
          double x = 0;
          for (int d = 0; d < f.dk; ++d)
            x += q[static_cast<std::size_t>(row * f.dk + d)] *
                 k[static_cast<std::size_t>((kv * f.n_cells + n) * f.dk + d)];
          x *= f.scale;
          if (f.softcap > 0) x = f.softcap * std::tanh(x / f.softcap);
          s.push_back(x + bias[static_cast<std::size_t>(h * f.n_cells + n)]);
          cells.push_back(n);
        }
        if (cells.empty()) continue;
        double sum = sinks.empty() ? 0 : std::exp(sinks[static_cast<std::size_t>(h)]);
        for (std::size_t j = 0; j < cells.size(); ++j) {
          sum += std::exp(s[j]);
          for (int d = 0; d < f.dv; ++d)
            out[static_cast<std::size_t>(d)] +=
                std::exp(s[j]) * v[static_cast<std::size_t>((kv * f.n_cells + cells[j]) * f.dv + d)];
        }
        for (int d = 0; d < f.dv; ++d)
          loss += c.g_[static_cast<std::size_t>(row * c.g_row_ + d)] * out[static_cast<std::size_t>(d)] / sum;
        if (a.d_lse) loss += a.d_lse[row] * std::log(sum);
      }
    return loss;
  }

  double slope(double& x) {
    constexpr double kStep = 1e-4;
    const double before = x;
    x = before + kStep;
    const double up = (*this)();
    x = before - kStep;
    const double down = (*this)();
    x = before;
    return (up - down) / (2 * kStep);
  }
};

TEST(AttendGradRef, IsTheSlopeOfForward) {
  for (int i = 0; i < 24; ++i) {
    const bool by_head = i % 2 == 0;
    GradSpec s{.a = {.hq = i % 3 == 0 ? 3 : 2,
                     .hkv = i % 3 == 1 ? 2 : 1,
                     .dk = 8,
                     .dv = i % 2 ? 8 : 16,
                     .n_rows = 1 + i % 5,
                     .n_cells = 1 + i * 3 % 11,
                     .block_q = 1 + i % 3,
                     .mask = static_cast<MaskKind>(i % 5),
                     .lists = i % 3 == 0 ? Lists::per_head : Lists::shared,
                     .gather = static_cast<Gather>(i / 2 % 3),
                     .kv = Dtype::f32,
                     .spread = 2.0f,
                     .softcap = i % 4 == 1 ? 1.5f : 0.0f,
                     .sinks = i % 3 == 2},
               .d_lse = i % 2 == 1,
               .give_delta = i % 4 == 2,
               .bias = by_head ? KeyBias::by_head : KeyBias::by_kv_head};
    s.a.seed = static_cast<std::uint64_t>(i) + 3;
    SCOPED_TRACE(s.line());
    GradCase c(s);
    Grads unused;
    Loss loss(c, unused);
    Grads got;
    const op::AttendGrad::Args a = c.args(Precision::high, got);
    ASSERT_EQ(op::why_not_differentiable(a), nullptr);
    for (int h = 0; h < s.a.hkv; ++h) op::attend_grad_ref(a, h);
    const auto near = [](double x, double y) {
      return std::fabs(x - y) <= 3e-6 * (1 + std::fabs(y));
    };  // lse and out are f32
    for (int h = 0; h < s.a.hq; ++h)
      for (int r = 0; r < s.a.n_rows; ++r)
        for (int d = 0; d < s.a.dk; ++d) {
          const double want = loss.slope(loss.q[static_cast<std::size_t>((h * s.a.n_rows + r) * s.a.dk + d)]);
          EXPECT_PRED2(near, a.d_q[h * a.d_q_head + r * a.d_q_row + d], want) << "dq " << h << " " << r << " " << d;
        }
    const int group = s.a.hq / s.a.hkv;
    for (int h = 0; h < s.a.hkv; ++h)
      for (std::int64_t n = 0; n < s.a.n_cells; ++n) {
        const std::int64_t at = h * s.a.n_cells + n;
        for (int d = 0; d < s.a.dk; ++d)
          EXPECT_PRED2(near, a.d_k[h * a.d_k_head + n * a.d_k_cell + d],
                       loss.slope(loss.k[static_cast<std::size_t>(at * s.a.dk + d)]))
              << "dk";
        for (int d = 0; d < s.a.dv; ++d)
          EXPECT_PRED2(near, a.d_v[h * a.d_v_head + n * a.d_v_cell + d],
                       loss.slope(loss.v[static_cast<std::size_t>(at * s.a.dv + d)]))
              << "dv";
        double all = 0;
        for (int member = 0; member < group; ++member) {
          const double one = loss.slope(loss.bias[static_cast<std::size_t>((h * group + member) * s.a.n_cells + n)]);
          all += one;
          if (by_head) {
            EXPECT_PRED2(near, a.d_key_bias[(h * group + member) * s.a.n_cells + n], one) << "d_key_bias";
          }
        }
        if (!by_head) {
          EXPECT_PRED2(near, a.d_key_bias[at], all) << "d_key_bias of a KV head";
        }
      }
    for (std::size_t h = 0; h < loss.sinks.size(); ++h)
      EXPECT_PRED2(near, a.d_sinks[h], loss.slope(loss.sinks[h])) << "d_sinks";
    if (HasFailure()) return;
  }
}

class AttendGradKernel : public testing::TestWithParam<const kernel::Kernel<op::AttendGrad>*> {
 protected:
  void SetUp() override {
    const std::string missing = missing_features(detect_features(), GetParam()->needs);
    if (!missing.empty()) GTEST_SKIP() << GetParam()->name << ": " << missing;
  }
  void check(const GradSpec& spec) {
    taken_ += check_grad(*GetParam(), spec, {Precision::fast, Precision::high});
  }
  Turns<kernel::KernelList<op::AttendGrad>, kernel::Kernel<op::AttendGrad>> turns_{kernel::attend_grad_list, GetParam()};
  int taken_ = 0;
};

TEST_P(AttendGradKernel, EveryHeadDim) {
  for (int d = 16; d <= 256; d += 8) {
    check(
        {.a = {.dk = d, .dv = d, .n_rows = d % 3 == 0 ? 1 : 9, .n_cells = 70, .seed = static_cast<std::uint64_t>(d)}});
    if (d % 24 == 0) check({.a = {.hq = 4, .hkv = 2, .dk = d, .dv = 272 - d, .n_rows = 1 + d % 5, .n_cells = 97}});
  }
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendGradKernel, EveryResidueOfRowsAndCells) {
  for (int n = 1; n <= 130; n += n < 40 ? 1 : 7)
    check({.a = {.hq = 3,
                 .hkv = 1,
                 .dk = 32,
                 .dv = 40,
                 .n_rows = n,
                 .n_cells = 131 - n % 5,
                 .block_q = n % 2 ? 64 : 128,
                 .mask = n % 3 ? MaskKind::causal : MaskKind::random,
                 .kv = static_cast<Dtype>(n % 3),
                 .seed = static_cast<std::uint64_t>(n)}});
  for (int n = 1; n <= 70; ++n)
    check({.a = {.hq = 2,
                 .hkv = 2,
                 .dk = 32,
                 .dv = 32,
                 .n_rows = n % 2 ? 1 : std::min(n, 13),
                 .n_cells = n,
                 .block_q = 16,
                 .mask = MaskKind::dense,
                 .seed = static_cast<std::uint64_t>(n)}});
  for (const int n : {255, 256, 257, 300, 511, 513, 700})  // about blocks of keys
    check({.a = {.hq = 4,
                 .hkv = 2,
                 .dk = 24,
                 .dv = 16,
                 .n_rows = 50,
                 .n_cells = n,
                 .block_q = 32,
                 .mask = n % 2 ? MaskKind::causal : MaskKind::random,
                 .seed = static_cast<std::uint64_t>(n)}});
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendGradKernel, Masks) {
  for (const MaskKind mask : {MaskKind::dense, MaskKind::causal, MaskKind::window, MaskKind::random, MaskKind::nothing})
    for (const Lists lists : {Lists::shared, Lists::per_kv_head, Lists::per_head})
      for (const Gather gather : {Gather::none, Gather::some, Gather::all})
        for (const int rows : {1, 40})
          if (turns_.mine())
            check({.a = {.hq = 4,
                         .hkv = 2,
                         .dk = 40,
                         .dv = 24,
                         .n_rows = rows,
                         .n_cells = 333,
                         .block_q = rows == 40 ? 16 : 64,
                         .mask = mask,
                         .lists = lists,
                         .gather = gather,
                         .nan_hidden = true,
                         .seed = static_cast<std::uint64_t>(rows)},
                   .bias = KeyBias::by_kv_head});
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendGradKernel, RandomCases) {
  Rng rng(43);
  const auto coin = [&] { return rng.below(2) == 0; };
  for (int i = 0; i < 48; ++i) {
    GradSpec s;
    s.a.seed = static_cast<std::uint64_t>(2000 + i);
    s.a.hkv = 1 + static_cast<int>(rng.below(3));
    s.a.hq = s.a.hkv * (1 + static_cast<int>(rng.below(6)));
    s.a.dk = 16 + 8 * static_cast<int>(rng.below(18));
    s.a.dv = coin() ? s.a.dk : 16 + 8 * static_cast<int>(rng.below(18));
    s.a.n_rows = 1 + static_cast<int>(rng.below(coin() ? 8 : 150));
    s.a.n_cells = 1 + static_cast<std::int64_t>(rng.below(s.a.n_rows > 20 ? 300 : 700));
    s.a.block_q = coin() ? 64 : 1 + static_cast<int>(rng.below(128));
    s.a.mask = static_cast<MaskKind>(rng.below(4));
    s.a.lists = static_cast<Lists>(rng.below(3));
    s.a.gather = static_cast<Gather>(rng.below(3));
    s.a.kv = static_cast<Dtype>(rng.below(3));
    s.a.spread = coin() ? 1.0f : 4.0f;
    s.a.softcap = coin() ? 0.0f : 20.0f;
    s.a.sinks = coin();
    s.a.nan_hidden = coin();
    s.a.token_major = coin();
    s.d_lse = coin();
    s.give_delta = coin();
    s.bias = static_cast<KeyBias>(rng.below(3));
    if (turns_.mine()) check(s);
  }
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendGradKernel, LargeLogits) {
  for (const int rows : {1, 4, 33})  // one row in many heads: a few draws of rounding errors say little
    check({.a = {.hq = rows == 1 ? 24 : 6,
                 .hkv = rows == 1 ? 12 : 3,
                 .dk = 64,
                 .dv = 64,
                 .n_rows = rows,
                 .n_cells = 300,
                 .mask = MaskKind::dense,
                 .spread = 40.0f}});
  EXPECT_GT(taken_, 0);
}

// Each output may be left out; the others do not change by it.
TEST_P(AttendGradKernel, EveryOutputIsOptional) {
  GradCase c({.a = {.hq = 4, .hkv = 2, .dk = 48, .dv = 32, .n_rows = 37, .n_cells = 290, .block_q = 16, .sinks = true},
              .bias = KeyBias::by_head});
  const Grads all = run_grad(*GetParam(), c, Precision::fast, 2);
  const auto pool = make_thread_pool(2);
  for (std::size_t out = 0; out < 5; ++out) {
    Grads r;
    op::AttendGrad::Args a = c.args(Precision::fast, r);
    if (out == 0) a.d_q = nullptr;
    if (out == 1) a.d_k = nullptr;
    if (out == 2) a.d_v = nullptr;
    if (out == 3) a.d_key_bias = nullptr;
    if (out == 4) a.d_sinks = nullptr;
    Workspace space;
    run_kernel(*GetParam(), a, *pool, space);
    for (std::size_t t = 0; t < 5; ++t) {
      const bool same = std::memcmp(r.x[t].data(), all.x[t].data(), all.x[t].size() * sizeof(float)) == 0;
      if (t != out)
        EXPECT_TRUE(same) << Grads::kName[t] << " without " << Grads::kName[out];
      else
        EXPECT_TRUE(std::all_of(r.x[t].begin(), r.x[t].end(), [](float x) {
          return std::bit_cast<std::uint32_t>(x) == AttendResult::kUntouched;
        })) << Grads::kName[t];
    }
  }
}

TEST_P(AttendGradKernel, NoRowsAndNoCells) {
  const std::int32_t none[2] = {0, 0};
  for (const bool rows : {false, true}) {
    InvertedRuns inverse;
    std::vector<float> zero(1000, 0.0f), got(1000, NAN);
    std::vector<float> lse(8, -INFINITY);
    op::AttendGrad::Args a;
    a.forward.hq = a.forward.hkv = 1;
    a.forward.dk = a.forward.dv = 16;
    a.forward.n_rows = rows ? 5 : 0;
    a.forward.n_cells = rows ? 0 : 40;
    a.forward.q = a.d_out = zero.data();
    a.forward.k = a.forward.v = zero.data();
    a.forward.k_type = a.forward.v_type = Dtype::f32;
    a.forward.out = zero.data();
    a.forward.lse = lse.data();
    a.forward.q_row = a.forward.out_row = a.d_out_row = a.d_q_row = a.d_k_cell = a.forward.k_cell = a.forward.v_cell =
        16;
    a.forward.runs = {
        .block_q = 64, .n_rows = a.forward.n_rows, .heads = 1, .n_cells = a.forward.n_cells, .row_ptr = none};
    invert(a.forward.runs, inverse);
    a.inverse = inverse.view;
    a.d_q = a.d_k = got.data();
    const auto pool = make_thread_pool(2);
    Workspace space;
    run_kernel(*GetParam(), a, *pool, space);
    const int written = rows ? 5 * 16 : 40 * 16;
    for (int i = 0; i < 1000; ++i)
      EXPECT_TRUE(i < written ? got[static_cast<std::size_t>(i)] == 0 : std::isnan(got[static_cast<std::size_t>(i)]))
          << i;
  }
}

// Tasks in any order, on any worker, memory guarded.
TEST_P(AttendGradKernel, OrderOfTasks) {
  Rng rng(9);
  for (int i = 0; i < 12; ++i) {
    GradSpec s{.a = {.hq = 4,
                     .hkv = i % 2 ? 1 : 2,
                     .dk = 32,
                     .dv = 48,
                     .n_rows = 20 + 9 * i,
                     .n_cells = 300 + 40 * i,
                     .block_q = 32,
                     .mask = i % 3 ? MaskKind::causal : MaskKind::random,
                     .sinks = i % 2 == 0},
               .bias = static_cast<KeyBias>(i % 3)};
    s.a.seed = static_cast<std::uint64_t>(i) + 1;
    GradCase c(s);
    const auto& k = *GetParam();
    for (const int workers : {1, 2, 5}) {
      const Grads want = run_grad(k, c, Precision::fast, workers);
      Grads got;
      const op::AttendGrad::Args a = c.args(Precision::fast, got);
      const std::size_t each = ((k.scratch_bytes ? k.scratch_bytes(a) : 0) + 63) & ~std::size_t{63};
      const std::size_t all = ((k.shared_bytes ? k.shared_bytes(a, workers) : 0) + 63) & ~std::size_t{63};
      Buffer scratch, shared;
      std::memset(scratch.grow(each + 256), 0xff, each + 256);
      std::memset(shared.grow(all + 256), 0xff, all + 256);
      std::memset(static_cast<char*>(scratch.data()) + each, 0x5a, 256);
      std::memset(static_cast<char*>(shared.data()) + all, 0x5a, 256);
      for (int phase = 0; phase < k.phases; ++phase) {
        std::vector<int> order(static_cast<std::size_t>(k.tasks(a, phase, workers)));
        std::iota(order.begin(), order.end(), 0);
        for (std::size_t n = order.size(); n > 1; --n) std::swap(order[n - 1], order[rng.below(n)]);
        for (const int task : order) k.run(a, phase, task, workers, scratch.data(), shared.data());
      }
      EXPECT_TRUE(got.same_bits(want)) << workers << " workers: " << s.line();
      for (int b = 0; b < 256; ++b)
        ASSERT_TRUE(static_cast<char*>(scratch.data())[each + static_cast<std::size_t>(b)] == 0x5a &&
                    static_cast<char*>(shared.data())[all + static_cast<std::size_t>(b)] == 0x5a)
            << k.name << " wrote behind its memory";
    }
  }
}

// Gradients are linear in (d_out, d_lse): twice of it gives exactly twice; a sum gives the sum, within bound.
TEST_P(AttendGradKernel, LinearInWhatComesIn) {
  const GradSpec s{
      .a = {.hq = 2, .hkv = 1, .dk = 64, .dv = 32, .n_rows = 45, .n_cells = 290, .block_q = 32, .sinks = true},
      .d_lse = true,
      .bias = KeyBias::by_head};
  const auto run_with = [&](const auto& change) {
    GradCase c(s);
    for (std::size_t i = 0; i < c.g_.size(); ++i) c.g_[i] = change(c.g_[i], i);
    for (std::size_t i = 0; i < c.d_lse_.size(); ++i) c.d_lse_[i] = change(c.d_lse_[i], i + 5);
    return run_grad(*GetParam(), c, Precision::fast, 2);
  };
  const Grads once = run_with([](float x, std::size_t) { return x; });
  const Grads twice = run_with([](float x, std::size_t) { return 2 * x; });
  const Grads some = run_with([](float x, std::size_t i) { return i % 3 ? x : 0.0f; });
  const Grads rest = run_with([](float x, std::size_t i) { return i % 3 ? 0.0f : x; });
  GradCase c(s);
  const Grads want = c.reference();
  const GradBound bound(*GetParam(), c, want);
  for (std::size_t t = 0; t < 5; ++t)
    for (std::size_t i = 0; i < once.x[t].size(); ++i) {
      if (!std::isfinite(once.x[t][i])) continue;
      EXPECT_EQ(twice.x[t][i], 2 * once.x[t][i]) << Grads::kName[t];
      EXPECT_NEAR(some.x[t][i] + rest.x[t][i], want.x[t][i], 2 * bound.allowed[t]) << Grads::kName[t];
    }
}

// Two selections that share no pair, given the lse and delta of both together, add up to the gradients of both.
TEST_P(AttendGradKernel, PartsOfASelectionAddUp) {
  for (int i = 0; i < 6; ++i) {
    GradSpec s{.a = {.hq = 4,
                     .hkv = 2,
                     .dk = 32,
                     .dv = 32,
                     .n_rows = 30 + i,
                     .n_cells = 333,
                     .block_q = 16,
                     .mask = static_cast<MaskKind>(i % 4),
                     .lists = static_cast<Lists>(i % 3)},
               .give_delta = true,
               .bias = KeyBias::by_kv_head};
    s.a.seed = static_cast<std::uint64_t>(i) + 77;
    GradCase c(s);
    const Grads want = c.reference();
    const GradBound bound(*GetParam(), c, want);
    std::array<Grads, 2> part;
    for (int p = 0; p < 2; ++p) {
      op::AttendGrad::Args a = c.args(Precision::fast, part[static_cast<std::size_t>(p)]);
      std::vector<std::int32_t> row_ptr;
      std::vector<TileRun> runs;
      const TileRuns all = a.forward.runs;
      for (int list = 0; list < all.heads; ++list)
        for (int b = 0; b <= all.n_blocks(); ++b) {
          row_ptr.push_back(static_cast<std::int32_t>(runs.size()));
          if (b == all.n_blocks()) continue;
          const std::int32_t* at = all.row_ptr + static_cast<std::ptrdiff_t>(list) * (all.n_blocks() + 1) + b;
          for (std::int32_t r = at[0]; r < at[1]; ++r)
            for (std::int32_t t = all.runs[r].begin; t < all.runs[r].end; ++t)
              if ((t + b) % 2 == p) runs.push_back({t, t + 1, all.runs[r].bits});
        }
      a.forward.runs.row_ptr = row_ptr.data();
      a.forward.runs.runs = runs.data();
      InvertedRuns inverse;
      invert(a.forward.runs, inverse);
      a.inverse = inverse.view;
      const auto pool = make_thread_pool(2);
      Workspace space;
      run_kernel(*GetParam(), a, *pool, space);
    }
    for (std::size_t t = 0; t < 5; ++t)
      for (std::size_t x = 0; x < want.x[t].size(); ++x) {
        if (!std::isfinite(want.x[t][x])) continue;
        ASSERT_NEAR(part[0].x[t][x] + part[1].x[t][x], want.x[t][x], 2 * bound.allowed[t])
            << Grads::kName[t] << " " << s.line();
      }
  }
}

// What is not finite reaches its own gradients, and no head, row block or tile that does not meet it.
TEST_P(AttendGradKernel, NanStaysInItsBlocks) {
  int walls = 0;
  for (int i = 0; i < 24; ++i) {
    GradSpec s{.a = {.hq = 4,
                     .hkv = 2,
                     .dk = 32,
                     .dv = 40,
                     .n_rows = 70,
                     .n_cells = 400,
                     .block_q = 16,
                     .mask = MaskKind::random,
                     .lists = static_cast<Lists>(i / 4 % 3),
                     .kv = Dtype::f32}};
    s.a.seed = static_cast<std::uint64_t>(i) + 5;
    const float bad = i % 3 ? NAN : INFINITY;
    GradCase c(s);
    const Grads clean = run_grad(*GetParam(), c, Precision::fast, 2);
    Grads dirty;
    op::AttendGrad::Args a = c.args(Precision::fast, dirty);
    const int where = i % 4, head = i % 4, row = (i * 7) % 70, kv_head = head / 2;  // 0 q, 1 d_out, 2 k, 3 v
    std::int64_t cell = (i * 53) % 400;
    while (!c.sees(head, row, cell)) cell = (cell + 1) % 400;
    const op::Attend::Args& f = a.forward;
    if (where == 0) const_cast<float*>(f.q)[head * f.q_head + row * f.q_row + 3] = bad;
    if (where == 1) c.g_[static_cast<std::size_t>(head * a.d_out_head + row * a.d_out_row + 3)] = bad;
    if (where == 2) store_as(const_cast<void*>(f.k), s.a.kv, kv_head * f.k_head + cell * f.k_cell + 3, bad);
    if (where == 3) store_as(const_cast<void*>(f.v), s.a.kv, kv_head * f.v_head + cell * f.v_cell + 3, bad);
    const auto pool = make_thread_pool(2);
    Workspace space;
    run_kernel(*GetParam(), a, *pool, space);
    const auto meets = [&](int h, int block, std::int64_t n) {  // a tile with n, and the row block
      for (std::int64_t x = n / kTileKeys * kTileKeys;
           x < std::min<std::int64_t>(400, n / kTileKeys * kTileKeys + kTileKeys); ++x)
        for (int r = block * 16; r < std::min(70, block * 16 + 16); ++r)
          if (c.sees(h, r, x)) return true;
      return false;
    };
    for (int h = 0; h < 4; ++h)
      for (int r = 0; r < 70; ++r) {
        const bool may = where < 2 ? h == head && r / 16 == row / 16 : h / 2 == kv_head && meets(h, r / 16, cell);
        const float* x = a.d_q + h * a.d_q_head + r * a.d_q_row;
        walls += !may;
        if (!may) {
          EXPECT_EQ(0, std::memcmp(x, clean.x[0].data() + (x - dirty.x[0].data()), 32 * sizeof(float)))
              << "dq " << h << " " << r << " " << s.line();
        }
        if (h == head && r == row && std::isnan(bad)) {
          EXPECT_TRUE(std::isnan(x[3])) << "lost: "
                                        << "qgkv"[where] << " " << s.line();
        }
      }
    for (int h = 0; h < 2; ++h)
      for (std::int64_t n = 0; n < 400; ++n) {
        const bool may = h == kv_head && (where < 2 ? meets(head, row / 16, n) : n / kTileKeys == cell / kTileKeys);
        const float* k = a.d_k + h * a.d_k_head + n * a.d_k_cell;
        const float* v = a.d_v + h * a.d_v_head + n * a.d_v_cell;
        walls += !may;
        if (may) continue;
        EXPECT_EQ(0, std::memcmp(k, clean.x[1].data() + (k - dirty.x[1].data()), 32 * sizeof(float)))
            << "dk " << h << " " << n << " " << s.line();
        EXPECT_EQ(0, std::memcmp(v, clean.x[2].data() + (v - dirty.x[2].data()), 40 * sizeof(float)))
            << "dv " << h << " " << n << " " << s.line();
      }
    if (HasFailure()) return;
  }
  EXPECT_GT(walls, 1000);
}

TEST_P(AttendGradKernel, RefusesWhatHasNoGradient) {
  GradCase c({.a = {}});
  Grads r;
  const op::AttendGrad::Args good = c.args(Precision::fast, r);
  ASSERT_EQ(GetParam()->why_not(good, 1), nullptr);
  const std::uint16_t bias = 0;
  float number = 0;
  op::AttendGrad::Args a = good;
  a.forward.bias = &bias;
  EXPECT_NE(GetParam()->why_not(a, 1), nullptr);
  a = good;
  a.forward.pv_skip = &number;
  EXPECT_NE(GetParam()->why_not(a, 1), nullptr);
  a = good;
  a.forward.resume.m = &number;
  EXPECT_NE(GetParam()->why_not(a, 1), nullptr);
  if (std::string_view(GetParam()->name) == "cpu.ref") return;  // it walks forward's lists
  a = good;
  a.inverse = {};
  EXPECT_NE(GetParam()->why_not(a, 1), nullptr);
  a = good;
  a.forward.dk = 20;
  EXPECT_NE(GetParam()->why_not(a, 1), nullptr);
}

std::string name(const testing::TestParamInfo<const kernel::Kernel<op::AttendGrad>*>& info) {
  std::string text = info.param->name;
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}
INSTANTIATE_TEST_SUITE_P(List, AttendGradKernel,
                         testing::ValuesIn(kernel::attend_grad_list.begin(), kernel::attend_grad_list.end()), name);

}  // namespace
}  // namespace lacuna::test
