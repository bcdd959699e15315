// SPDX-License-Identifier: Apache-2.0
// The prefill kernels on the GPU against op attend's reference: random calls in which every pair of levels of any
// two factors occurs, poisoned outputs, the same bits again and through a CUDA graph.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstring>

#include "kernel/cuda/sm80/prefill.h"
#include "kernel/cuda/sm90a/prefill.h"
#include "prefill_device.h"

namespace lacuna {
namespace {

using kernel::cuda::ListError;
using kernel::cuda::Prefill;
using test::Cover;
using test::DeviceCase;
using test::Distance;
using test::HostTensor;
using test::must;
using test::PrefillCase;
using test::PrefillSpec;
using test::Share;

void start(const DeviceCase& on, const PrefillSpec& s) {
  ASSERT_EQ(kernel::cuda::prefill_why_not(on.a), nullptr) << s.line();
  ASSERT_EQ(kernel::cuda::prefill(on.a, nullptr), nullptr) << s.line();
  must(cudaDeviceSynchronize());
}

class CudaPrefill : public test::GpuTest {};

TEST_F(CudaPrefill, BoundOfEveryKernel) {
  int taken = 0;
  double worst = 0;
  for (auto& future : test::coming(test::specs(), test::expect<PrefillCase, PrefillSpec>)) {
    const auto e = future.get();
    const PrefillSpec& s = e.c->s;
    DeviceCase on(*e.c);
    EXPECT_EQ(on.list_error(), ListError::none) << s.line();
    EXPECT_TRUE(major_ != 9 || !kernel::cuda::sm90a::prefill_why_not(on.a))
        << "refused by the fast kernel: " << s.line();

    const auto judge = [&](const char* kernel) {
      bool clean = true;
      const test::HostResult result = on.result(*e.c, clean);
      EXPECT_TRUE(clean) << kernel << ": a place not written, or one written that is not its own: " << s.line();
      const Distance d = test::between(result, e.want);
      EXPECT_TRUE(d.same_shape && d.out <= e.allowed.out && d.lse <= e.allowed.lse)
          << kernel << ": out off by " << d.out << " (allowed " << e.allowed.out << "), lse by " << d.lse
          << " (allowed " << e.allowed.lse << "), shape " << d.same_shape << ": " << s.line();
      return d.out / e.allowed.out;
    };
    ASSERT_EQ(kernel::cuda::sm80::prefill(on.a, nullptr), nullptr) << s.line();
    must(cudaDeviceSynchronize());
    judge("plain");
    on.poison();
    start(on, s);
    worst = std::max(worst, judge("best"));

    const std::vector<std::uint16_t> out = on.out();
    const std::vector<float> lse = on.lse();
    on.poison();
    start(on, s);
    EXPECT_EQ(out, on.out()) << "other bits the second time: " << s.line();
    EXPECT_EQ(0, std::memcmp(lse.data(), on.lse().data(), lse.size() * sizeof(float))) << s.line();
    EXPECT_EQ(on.work(), (std::vector<std::uint32_t>{0, 0})) << s.line();
    ++taken;
  }
  fmt::print("{} cases, largest error {:.2f} of the allowed one\n", taken, worst);
}

// Many tiles for every thread block, uneven lists with runs of empty ones, and other work on the card beside.
TEST_F(CudaPrefill, SameBitsEveryTime) {
  for (const auto& [cover, block_q] : {std::pair{Cover::random, 128}, {Cover::empty_rows, 64}, {Cover::dense, 128}}) {
    PrefillSpec s;
    s.hq = 8, s.hkv = 2, s.nq = s.nk = 4000, s.cover = cover, s.block_q = block_q, s.density = 0.3;
    DeviceCase on{PrefillCase(s)};
    start(on, s);
    test::same_bits_beside_other_work(
        100, s.line(), [&] { on.poison(); }, [&] { return kernel::cuda::prefill(on.a, nullptr); },
        [&] { return on.out(); });
  }
}

TEST_F(CudaPrefill, GraphsReplayIt) {
  PrefillSpec s;
  s.cover = Cover::random;
  DeviceCase on{PrefillCase(s)};
  start(on, s);
  const auto out = on.out();
  on.poison();
  test::Graph graph([&](cudaStream_t stream) { ASSERT_EQ(kernel::cuda::prefill(on.a, stream), nullptr); });
  graph.replay(3);
  EXPECT_EQ(out, on.out());
}

// A visible key that is no number spreads to the rows that see it, and to no other block of rows.
TEST_F(CudaPrefill, NanSpreadsToItsRows) {
  PrefillSpec s;
  s.nq = s.nk = 512, s.hq = s.hkv = 1;
  PrefillCase c(s);
  c.k.data[c.k.at(0, 0, 300, 5)] = HostTensor::kUntouched;
  DeviceCase on(c);
  start(on, s);
  const auto out = on.out();
  const auto lse = on.lse();
  for (int i = 0; i < s.nq; ++i) {
    EXPECT_EQ(std::isnan(c.number(out[c.out_layout().at(0, 0, i, 0)])), i >= 300) << i;
    EXPECT_EQ(std::isnan(lse[DeviceCase::kGap + static_cast<std::size_t>(i)]), i >= 300) << i;
  }
}

TEST_F(CudaPrefill, NothingToDo) {
  PrefillSpec s;
  s.nk = 0, s.causal = false;
  const PrefillCase c(s);
  DeviceCase on(c);
  on.a.k.data = on.a.v.data = nullptr;
  start(on, s);
  bool clean = true;
  const auto r = on.result(c, clean);
  EXPECT_TRUE(clean);
  for (const float x : r.out) EXPECT_EQ(x, 0.0f);
  for (const float x : r.lse) EXPECT_EQ(x, -INFINITY);
  on.a.nq = 0;
  start(on, s);
  on.a.nq = s.nq, on.a.batch = 0;
  start(on, s);
}

TEST_F(CudaPrefill, ListsAreChecked) {
  PrefillSpec s;
  s.nq = s.nk = 700, s.cover = Cover::partial, s.density = 1;
  const auto with = [&](auto&& spoil) {
    PrefillCase c(s);
    spoil(c);
    return DeviceCase(c).list_error();
  };
  EXPECT_EQ(with([](PrefillCase&) {}), ListError::none);
  EXPECT_EQ(with([](PrefillCase& c) { c.row_ptr[3] = -1; }), ListError::row_ptr);
  EXPECT_EQ(with([](PrefillCase& c) { c.row_ptr.back() += 1; }), ListError::row_ptr);
  EXPECT_EQ(with([](PrefillCase& c) { c.columns[8] = 6; }), ListError::column);
  EXPECT_EQ(with([](PrefillCase& c) { c.columns[8] = -1; }), ListError::column);
  EXPECT_EQ(with([](PrefillCase& c) { c.columns[1] = c.columns[0]; }), ListError::twice);
  EXPECT_EQ(with([](PrefillCase& c) { c.bits[2] = DeviceCase::masks(c); }), ListError::bits);
}

TEST_F(CudaPrefill, RefusesWhatItCannotTake) {
  const PrefillCase c({.nq = 64, .nk = 64, .cover = Cover::random, .density = 1});
  const DeviceCase on(c);
  const auto refuses = [&](auto&& spoil) {
    Prefill a = on.a;
    spoil(a);
    return kernel::cuda::prefill_why_not(a) != nullptr;
  };
  EXPECT_FALSE(refuses([](Prefill&) {}));
  EXPECT_TRUE(refuses([](Prefill& a) { a.dtype = Dtype::f32; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.hq = 5; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.dk = 264; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.nq = -1; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.scale = 0; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.scale = NAN; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.work = nullptr; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.k.data = nullptr; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.lists.block_q = 32; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.lists.heads = 3; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.lists.batches = 2; }));
  EXPECT_TRUE(refuses([](Prefill& a) { a.lists.columns = nullptr; }));

  // What TMA cannot read or nobody compiled goes to the plain kernel.
  const auto left_to_plain = [&](auto&& spoil) {
    Prefill a = on.a;
    spoil(a);
    return kernel::cuda::sm90a::prefill_why_not(a) && !kernel::cuda::prefill_why_not(a);
  };
  EXPECT_EQ(left_to_plain([](Prefill&) {}), major_ != 9);
  EXPECT_TRUE(left_to_plain([](Prefill& a) { a.dk = 72; }));
  EXPECT_TRUE(left_to_plain([](Prefill& a) { a.q.data = static_cast<char*>(a.q.data) + 2; }));
  EXPECT_TRUE(left_to_plain([](Prefill& a) { a.v.row += 4; }));
  EXPECT_TRUE(left_to_plain([](Prefill& a) { a.k.row = 0; }));
}

}  // namespace
}  // namespace lacuna
