// SPDX-License-Identifier: Apache-2.0
// The backward kernels on the GPU against op attend_grad's reference: forward's random calls, poisoned outputs, the
// same bits again and through a CUDA graph; and the inverse of lists against one made by hand.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <memory>

#include "grad_case.h"
#include "kernel/cuda/grad_rows.h"
#include "kernel/cuda/prefill_grad.h"
#include "kernel/cuda/sm80/prefill_grad.h"
#include "kernel/cuda/sm90a/prefill_grad.h"
#include "prefill_device.h"

namespace lacuna {
namespace {

using kernel::cuda::kInverseParts;
using kernel::cuda::PrefillGrad;
using test::Cover;
using test::DeviceArray;
using test::DeviceCase;
using test::Distance;
using test::GradCase;
using test::HostTensor;
using test::must;
using test::PrefillSpec;

// A call's arrays on the device, forward's results among them; the gradients with poison around and between rows.
class DeviceGrad {
 public:
  explicit DeviceGrad(const GradCase& c)
      : forward_(c.c),
        out_(c.out.data),
        g_(c.g.data),
        lse_(c.lse),
        d_lse_(c.d_lse),
        rows_(static_cast<std::size_t>(kernel::cuda::prefill_grad_floats(forward_.a))),
        d_q_(c.c.q.data.size()),
        d_k_(c.c.k.data.size()),
        d_v_(c.c.v.data.size()),
        row_ptr_(static_cast<std::size_t>(lists(c)) * (c.c.blocks_k() + 1)),
        names_(c.c.columns.size()),
        bits_(c.c.columns.size()),
        counts_(static_cast<std::size_t>(lists(c)) * kInverseParts * c.c.blocks_k()) {
    a.forward = forward_.a;
    a.forward.out = test::like(c.out, out_.data());
    a.forward.lse = lse_.data();
    a.d_out = test::like(c.g, g_.data());
    if (!c.d_lse.empty()) a.d_lse = d_lse_.data();
    a.rows = rows_.data();
    a.d_q = test::like(c.c.q, d_q_.data()), a.d_k = test::like(c.c.k, d_k_.data()), a.d_v = test::like(c.c.v, d_v_.data());
    if (a.forward.lists.row_ptr)
      a.inverse = {row_ptr_.data(), names_.data(), a.forward.lists.bits ? bits_.data() : nullptr, counts_.data()};
    poison();
  }
  static int lists(const GradCase& c) { return c.c.list_batches() * c.c.lists(); }
  void poison() {
    must(cudaMemset(rows_.data(), 0xff, rows_.size() * sizeof(float)));
    for (auto* t : {&d_q_, &d_k_, &d_v_}) t->set(std::vector<std::uint16_t>(t->size(), HostTensor::kUntouched));
  }
  std::array<std::vector<std::uint16_t>, 3> all() const { return {d_q_.get(), d_k_.get(), d_v_.get()}; }
  std::vector<std::int32_t> inverse_row_ptr() const { return row_ptr_.get(); }
  std::vector<std::int32_t> inverse_rows() const { return names_.get(); }
  std::vector<std::int32_t> inverse_bits() const { return bits_.get(); }
  std::vector<std::uint32_t> work() const { return forward_.work(); }

  PrefillGrad a;

 private:
  DeviceCase forward_;
  DeviceArray<std::uint16_t> out_, g_;
  DeviceArray<float> lse_, d_lse_, rows_;
  DeviceArray<std::uint16_t> d_q_, d_k_, d_v_;
  DeviceArray<std::int32_t> row_ptr_, names_, bits_, counts_;
};

// What was written, taken out of its gaps.
GradCase::Grads got(const GradCase& c, const DeviceGrad& on, bool& clean) {
  const auto all = on.all();
  return {test::taken_out(c.c, c.c.q, all[0], clean), test::taken_out(c.c, c.c.k, all[1], clean),
          test::taken_out(c.c, c.c.v, all[2], clean)};
}

struct Expected {
  std::unique_ptr<GradCase> c;
  GradCase::Grads want;
  std::array<double, 3> allowed{};
};
Expected expect(const PrefillSpec& s) {
  Expected e{std::make_unique<GradCase>(s, s.seed % 2 == 0), {}, {}};
  e.want = e.c->reference();
  const GradCase::Grads plain = e.c->plain();
  for (int t = 0; t < 3; ++t) e.allowed[t] = test::allowed(test::between(plain[t], e.want[t]).out);
  return e;
}

void invert(const DeviceGrad& on) {
  ASSERT_EQ(kernel::cuda::invert_lists(on.a.forward, on.a.inverse, nullptr), nullptr);
}
void start(const DeviceGrad& on, const PrefillSpec& s) {
  ASSERT_EQ(kernel::cuda::prefill_grad_why_not(on.a), nullptr) << s.line();
  ASSERT_EQ(kernel::cuda::prefill_grad(on.a, nullptr), nullptr) << s.line();
  must(cudaDeviceSynchronize());
}

class CudaGrad : public test::GpuTest {};

TEST_F(CudaGrad, BoundOfEveryKernel) {
  int taken = 0;
  double worst = 0;
  for (auto& future : test::coming(test::specs(), expect)) {
    const Expected e = future.get();
    const PrefillSpec& s = e.c->s;
    DeviceGrad on(*e.c);
    invert(on);
    EXPECT_TRUE(major_ != 9 || !kernel::cuda::sm90a::prefill_grad_why_not(on.a))
        << "refused by the fast kernel: " << s.line();
    const auto judge = [&](const char* kernel) {
      static constexpr const char* kName[3] = {"dq", "dk", "dv"};
      bool clean = true;
      double largest = 0;
      const GradCase::Grads result = got(*e.c, on, clean);
      EXPECT_TRUE(clean) << kernel << ": a place not written, or one written that is not its own: " << s.line();
      for (int t = 0; t < 3; ++t) {
        const Distance d = test::between(result[t], e.want[t]);
        EXPECT_TRUE(d.same_shape && d.out <= e.allowed[t])
            << kernel << ": " << kName[t] << " off by " << d.out << " (allowed " << e.allowed[t] << "), shape "
            << d.same_shape << ": " << s.line();
        largest = std::max(largest, d.out / e.allowed[t]);
      }
      return largest;
    };
    ASSERT_EQ(kernel::cuda::grad_rows(on.a, nullptr), nullptr) << s.line();
    ASSERT_EQ(kernel::cuda::sm80::prefill_grad(on.a, nullptr), nullptr) << s.line();
    must(cudaDeviceSynchronize());
    judge("plain");
    on.poison();
    start(on, s);
    worst = std::max(worst, judge("best"));
    const auto first = on.all();
    on.poison();
    start(on, s);
    EXPECT_EQ(first, on.all()) << "other bits the second time: " << s.line();
    EXPECT_EQ(on.work(), (std::vector<std::uint32_t>{0, 0})) << s.line();
    ++taken;
  }
  fmt::print("{} cases, largest error {:.2f} of the allowed one\n", taken, worst);
}

// More columns than the threads that place them, and rows in many parts.
TEST_F(CudaGrad, InverseOfLists) {
  PrefillSpec s;
  s.hq = 2, s.hkv = 1, s.nq = 40 * 64, s.nk = 300 * 64 - 5, s.dk = s.dv = 8, s.block_q = s.block_k = 64;
  s.cover = Cover::partial, s.density = 0.2, s.causal = false;
  test::PrefillCase lists(s);
  s.nq = s.nk = 64, s.cover = Cover::dense;  // the reference of so many keys is not asked for
  GradCase small(s, false);
  small.c = std::move(lists);
  const test::PrefillCase& c = small.c;
  const DeviceGrad on(small);
  invert(on);
  std::vector<std::int32_t> row_ptr, rows, bits;
  for (int list = 0; list < c.lists(); ++list) {
    const std::int32_t* at = c.row_ptr.data() + static_cast<std::size_t>(list) * (c.blocks_q() + 1);
    for (int column = 0; column < c.blocks_k(); ++column) {
      row_ptr.push_back(static_cast<std::int32_t>(rows.size()));
      for (int r = 0; r < c.blocks_q(); ++r)
        for (int e = at[r]; e < at[r + 1]; ++e)
          if (c.columns[e] == column) rows.push_back(r), bits.push_back(c.bits[e]);
    }
    row_ptr.push_back(static_cast<std::int32_t>(rows.size()));
  }
  EXPECT_EQ(row_ptr, on.inverse_row_ptr());
  EXPECT_EQ(rows, on.inverse_rows());
  EXPECT_EQ(bits, on.inverse_bits());
}

// Many tiles for every thread block, uneven lists with runs of empty ones, and other work on the card beside. Of
// results that are right (BoundOfEveryKernel) forward's kernel makes out and lse.
TEST_F(CudaGrad, SameBitsEveryTime) {
  for (const auto& [cover, block] : {std::pair{Cover::random, 128}, {Cover::empty_rows, 64}, {Cover::dense, 128}}) {
    PrefillSpec s;
    s.hq = 8, s.hkv = 2, s.nq = s.nk = 100, s.block_q = s.block_k = block, s.density = 0.3;
    GradCase c(s, false);
    s.nq = s.nk = 4000, s.cover = cover;
    c.c = test::PrefillCase(s);
    c.out.shape(s.batch, s.hq, s.nq, s.dv, false);
    c.g.shape(s.batch, s.hq, s.nq, s.dv, false);
    c.c.fill(c.g);
    c.lse.assign(static_cast<std::size_t>(s.hq) * s.nq, 0);
    DeviceGrad on(c);
    invert(on);
    ASSERT_EQ(kernel::cuda::prefill(on.a.forward, nullptr), nullptr);
    start(on, s);
    test::same_bits_beside_other_work(
        30, s.line(), [&] { on.poison(); }, [&] { return kernel::cuda::prefill_grad(on.a, nullptr); },
        [&] { return on.all(); });
  }
}

TEST_F(CudaGrad, GraphsReplayIt) {
  PrefillSpec s;
  s.cover = Cover::random;
  const GradCase c(s, true);
  DeviceGrad on(c);
  invert(on);
  start(on, s);
  const auto first = on.all();
  on.poison();
  test::Graph graph([&](cudaStream_t stream) {
    ASSERT_EQ(kernel::cuda::invert_lists(on.a.forward, on.a.inverse, stream), nullptr);
    ASSERT_EQ(kernel::cuda::prefill_grad(on.a, stream), nullptr);
  });
  graph.replay(3);
  EXPECT_EQ(first, on.all());
}

// What is not asked for is not written, and the rest stays the same.
TEST_F(CudaGrad, WritesWhatIsAskedFor) {
  PrefillSpec s;
  const GradCase c(s, true);
  DeviceGrad on(c);
  start(on, s);
  const auto whole = on.all();
  const auto untouched = [](const std::vector<std::uint16_t>& x) {
    return std::all_of(x.begin(), x.end(), [](std::uint16_t y) { return y == HostTensor::kUntouched; });
  };
  const PrefillGrad a = on.a;
  on.poison();
  on.a.d_q.data = nullptr;
  start(on, s);
  EXPECT_TRUE(untouched(on.all()[0]) && on.all()[1] == whole[1] && on.all()[2] == whole[2]);
  on.poison();
  on.a = a;
  on.a.d_k.data = on.a.d_v.data = nullptr;
  start(on, s);
  EXPECT_TRUE(on.all()[0] == whole[0] && untouched(on.all()[1]) && untouched(on.all()[2]));
}

// Without keys or without rows the gradients of what is there are zeros.
TEST_F(CudaGrad, NothingToDo) {
  for (const bool keys : {false, true}) {
    PrefillSpec s;
    (keys ? s.nq : s.nk) = 0;
    s.causal = false;
    const GradCase c(s, false);
    DeviceGrad on(c);
    start(on, s);
    bool clean = true;
    const auto r = got(c, on, clean);
    EXPECT_TRUE(clean);
    for (const auto& x : r)
      for (const float y : x) EXPECT_EQ(y, 0.0f);
    on.a.forward.batch = 0;
    start(on, s);
  }
}

TEST_F(CudaGrad, RefusesWhatItCannotTake) {
  PrefillSpec s;
  s.nq = s.nk = 64, s.cover = Cover::partial, s.density = 1;
  const GradCase c(s, false);
  const DeviceGrad on(c);
  const auto refuses = [&](auto&& spoil) {
    PrefillGrad a = on.a;
    spoil(a);
    return kernel::cuda::prefill_grad_why_not(a) != nullptr;
  };
  EXPECT_FALSE(refuses([](PrefillGrad&) {}));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.forward.hq = 5; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.forward.lse = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.rows = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.rows += 1; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.d_out.data = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.d_k.data = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.inverse.row_ptr = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.inverse.rows = nullptr; }));
  EXPECT_TRUE(refuses([](PrefillGrad& a) { a.inverse.bits = nullptr; }));
}

}  // namespace
}  // namespace lacuna
