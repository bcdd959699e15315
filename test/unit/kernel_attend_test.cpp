// SPDX-License-Identifier: Apache-2.0
// Every attend kernel of this machine against the fp64 reference, over generated cases.
#include <gtest/gtest.h>

#include <vector>

#include "base/machine.h"
#include "support/attend_case.h"
#include "support/thin.h"

namespace lacuna::test {
namespace {

class AttendKernel : public testing::TestWithParam<const kernel::Kernel<op::Attend>*> {
 protected:
  void SetUp() override {
    const std::string missing = missing_features(detect_features(), GetParam()->needs);
    if (!missing.empty()) GTEST_SKIP() << GetParam()->name << ": " << missing;
  }
  // Both precisions; a kernel must take at least one of them or refuse the shape.
  void check(const AttendSpec& spec) {
    taken_ += check_attend(*GetParam(), spec, {Precision::fast, Precision::high});
  }
  Turns<kernel::KernelList<op::Attend>, kernel::Kernel<op::Attend>> turns_{kernel::attend_list, GetParam()};
  int taken_ = 0;
};

TEST_P(AttendKernel, EveryHeadDim) {
  for (int d = 16; d <= 256; d += 8) {
    check({.dk = d, .dv = d, .n_rows = d % 3 == 0 ? 1 : 9, .n_cells = 70, .seed = static_cast<std::uint64_t>(d)});
    if (d % 24 == 0) check({.hq = 4, .hkv = 2, .dk = d, .dv = 272 - d, .n_rows = 1 + d % 5, .n_cells = 97});
  }
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendKernel, EveryNumberOfRows) {
  for (int n = 1; n <= 130; n += n < 20 ? 1 : 7)
    check({.hq = 3, .hkv = 1, .dk = 32, .dv = 40, .n_rows = n, .n_cells = 131, .block_q = n % 2 ? 64 : 128,
           .mask = n % 3 ? MaskKind::causal : MaskKind::random, .seed = static_cast<std::uint64_t>(n)});
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendKernel, EveryResidueOfCells) {
  for (int n = 1; n <= 70; ++n)
    check({.hq = 2, .hkv = 2, .dk = 32, .dv = 32, .n_rows = n % 2 ? 1 : std::min(n, 13), .n_cells = n,
           .block_q = 16, .seed = static_cast<std::uint64_t>(n)});
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendKernel, Masks) {
  for (const MaskKind mask : {MaskKind::dense, MaskKind::causal, MaskKind::window, MaskKind::random, MaskKind::nothing})
    for (const Lists lists : {Lists::shared, Lists::per_kv_head, Lists::per_head})
      for (const Gather gather : {Gather::none, Gather::some, Gather::all})
        for (const int rows : {1, 3, 8, 40})
          if (turns_.mine())
            check({.hq = 4, .hkv = 2, .dk = 40, .dv = 24, .n_rows = rows, .n_cells = 333, .block_q = rows == 40 ? 16 : 64,
                   .mask = mask, .lists = lists, .gather = gather, .nan_hidden = true, .seed = static_cast<std::uint64_t>(rows)});
  EXPECT_GT(taken_, 0);
}

TEST_P(AttendKernel, RandomCases) {
  Rng rng(42);
  const auto coin = [&] { return rng.below(2) == 0; };
  for (int i = 0; i < 60; ++i) {
    AttendSpec s;
    s.seed = static_cast<std::uint64_t>(1000 + i);
    s.hkv = 1 + static_cast<int>(rng.below(3));
    s.hq = s.hkv * (1 + static_cast<int>(rng.below(9)));
    s.dk = 16 + 8 * static_cast<int>(rng.below(18));
    s.dv = coin() ? s.dk : 16 + 8 * static_cast<int>(rng.below(18));
    s.n_rows = coin() ? 1 + static_cast<int>(rng.below(8)) : 1 + static_cast<int>(rng.below(150));
    s.n_cells = 1 + static_cast<std::int64_t>(rng.below(s.n_rows > 20 ? 300 : 1200));
    s.block_q = coin() ? 64 : 1 + static_cast<int>(rng.below(128));
    s.mask = static_cast<MaskKind>(rng.below(4));
    s.lists = static_cast<Lists>(rng.below(3));
    s.gather = static_cast<Gather>(rng.below(3));
    s.kv = static_cast<Dtype>(rng.below(5));
    s.in_place = rng.below(2) == 0;
    s.fit_types();
    s.spread = coin() ? 1.0f : 4.0f;
    s.softcap = coin() ? 0.0f : 20.0f;
    s.sinks = coin();
    s.bias = rng.below(3) == 0;
    s.slopes = coin();
    s.resume = rng.below(3) == 0;
    s.normalise = coin();
    s.lse = coin();
    s.nan_hidden = coin();
    if (turns_.mine()) check(s);
  }
  EXPECT_GT(taken_, 0);
}

// Logits that climb by far more than the range of exp from one tile to the next.
TEST_P(AttendKernel, LargeLogits) {
  for (const int rows : {1, 4, 33})
    check({.hq = 2, .hkv = 1, .dk = 64, .dv = 64, .n_rows = rows, .n_cells = 700, .mask = MaskKind::dense, .spread = 60.0f});
  EXPECT_GT(taken_, 0);
}

// A NaN in one row's q stays in that row, in every head alone.
TEST_P(AttendKernel, NanStaysInItsRow) {
  for (const int rows : {1, 5, 19}) {
    AttendCase c({.hq = 2, .hkv = 1, .dk = 32, .dv = 32, .n_rows = rows, .n_cells = 100, .mask = MaskKind::dense});
    AttendResult r;
    op::Attend::Args a = c.args(GetParam()->pack, Precision::fast, r);
    const_cast<float*>(a.q)[a.q_head + (rows / 2) * a.q_row + 3] = NAN;
    if (GetParam()->why_not && GetParam()->why_not(a, 1)) continue;
    const auto one = make_thread_pool(1);
    Workspace space;
    run_kernel(*GetParam(), a, *one, space);
    for (int h = 0; h < 2; ++h)
      for (int i = 0; i < rows; ++i)
        EXPECT_EQ(std::isnan(a.out[h * a.out_head + i * a.out_row]), h == 1 && i == rows / 2) << h << " " << i;
  }
}

std::string name(const testing::TestParamInfo<const kernel::Kernel<op::Attend>*>& info) {
  std::string text = info.param->name;
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}
INSTANTIATE_TEST_SUITE_P(List, AttendKernel, testing::ValuesIn(kernel::attend_list.begin(), kernel::attend_list.end()), name);

}  // namespace
}  // namespace lacuna::test
