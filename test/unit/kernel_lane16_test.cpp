// SPDX-License-Identifier: Apache-2.0
// The lane16 kernels where the walk over all kernels (kernel_attend_test.cpp) does not look:
// strided_scores against its reference, attend on f32 packed copies, state handed from call to call,
// many chunks of decode.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/machine.h"
#include "op/strided_scores_ref.h"
#include "support/attend_case.h"
#include "support/thin.h"

namespace lacuna::test {
namespace {

template <class Op>
std::vector<const kernel::Kernel<Op>*> lane16_kernels(const kernel::KernelList<Op>& list) {
  std::vector<const kernel::Kernel<Op>*> found;
  for (const auto* k : list)
    if (k->pack == PackFormat::lane16_f16 && missing_features(detect_features(), k->needs).empty()) found.push_back(k);
  return found;
}

struct ScoresSpec {
  int stride, hq, hkv, dk, n_rows;
  std::int64_t n_keys, first_cell, first_key_of_row0;
  PackFormat format;
  std::string line() const {
    return fmt::format("strided_scores stride={} hq={} hkv={} dk={} nq={} nkeys={} first_cell={} first_key={} pack={}",
                       stride, hq, hkv, dk, n_rows, n_keys, first_cell, first_key_of_row0, name_of(format));
  }
};

void check_scores(const ScoresSpec& s, std::uint64_t seed) {
  Rng rng(seed);
  const auto normal = [&] { return static_cast<float>(rng.normal()); };
  const std::int64_t cells = s.first_cell + s.n_keys + 40;
  std::vector<float> q(static_cast<std::size_t>(s.hq * s.n_rows * s.dk)), raw(static_cast<std::size_t>(cells * s.hkv * s.dk));
  for (auto& x : q) x = normal();
  // Cells outside the keys hold infinities: they must not get in.
  for (std::int64_t c = 0; c < cells; ++c)
    for (int i = 0; i < s.hkv * s.dk; ++i)
      raw[static_cast<std::size_t>(c * s.hkv * s.dk + i)] =
          c < s.first_cell || c >= s.first_cell + s.n_keys ? INFINITY : half_to_float(float_to_half(normal()));
  PackedView view{nullptr, s.format, s.hkv, s.dk, cells};
  Buffer storage;
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(cells) * s.hkv);
  view.data = storage.grow(bytes);
  std::memset(storage.data(), 0, bytes);
  op::Pack::Args p;
  p.dtype = Dtype::f32;
  p.raw = raw.data();
  p.head = s.dk;
  p.cell = static_cast<std::int64_t>(s.hkv) * s.dk;
  p.n = cells;
  p.format = s.format;
  p.heads = s.hkv;
  p.dim = s.dk;
  p.packed = storage.data();
  op::pack_ref(p);

  op::StridedScores::Args a;
  a.stride = s.stride;
  a.hq = s.hq;
  a.hkv = s.hkv;
  a.dk = s.dk;
  a.n_rows = s.n_rows;
  a.n_keys = s.n_keys;
  a.first_cell = s.first_cell;
  a.q = q.data();
  a.q_head = static_cast<std::int64_t>(s.n_rows) * s.dk;
  a.q_row = s.dk;
  a.packed_k = view;
  a.first_key_of_row0 = s.first_key_of_row0;
  a.score_row = a.n_cols() + 5;
  const std::size_t size = static_cast<std::size_t>(a.hq * a.m_rows() * a.score_row);
  std::vector<float> want(size, 77.0f);
  a.score = want.data();
  for (int h = 0; h < a.hq; ++h)
    for (std::int64_t m = 0; m < a.m_rows(); ++m) op::strided_scores_row_ref(a, h, m);

  for (const auto* k : lane16_kernels(kernel::strided_scores_list)) {
    ASSERT_EQ(k->why_not(a, 1), nullptr) << k->name << " " << s.line();
    for (const int workers : {1, 3}) {
      const auto pool = make_thread_pool(workers);
      std::vector<float> got(size, NAN);
      a.score = got.data();
      Workspace space;
      std::memset(space.scratch.grow(1 << 20), 0xff, 1 << 20);
      run_kernel(*k, a, *pool, space);
      for (int h = 0; h < a.hq; ++h)
        for (std::int64_t m = 0; m < a.m_rows(); ++m)
          for (std::int64_t n = 0; n < a.score_row; ++n) {
            const auto at = static_cast<std::size_t>((h * a.m_rows() + m) * a.score_row + n);
            if (n < a.causal_end(m)) {
              // f32 sums of stride x dk products of standard normal numbers.
              const double allowed = 2e-7 * a.stride * a.dk + 1e-6;
              ASSERT_NEAR(got[at], want[at], allowed) << k->name << " m=" << m << " n=" << n << ": " << s.line();
            } else if (n >= a.n_cols()) {
              ASSERT_TRUE(std::isnan(got[at])) << k->name << " wrote past the columns: " << s.line();
            }
          }
    }
  }
}

TEST(Lane16StridedScores, EqualTheReference) {
  ASSERT_FALSE(lane16_kernels(kernel::strided_scores_list).empty()) << "this machine has no AVX2";
  Rng rng(5);
  for (int i = 0; i < 90; ++i) {
    const int stride = 1 << (i % 5);
    const int hkv = 1 + static_cast<int>(rng.below(3)), group = 1 + static_cast<int>(rng.below(3));
    const int rows = 1 + static_cast<int>(rng.below(i % 9 == 0 ? 1000 : 120));
    const auto keys = 1 + static_cast<std::int64_t>(rng.below(300));
    check_scores({stride, hkv * group, hkv, 16 + 8 * static_cast<int>(rng.below(15)), rows, keys,
                  16 * static_cast<std::int64_t>(rng.below(4)), i % 3 ? static_cast<std::int64_t>(rng.below(100)) : -1,
                  i % 2 ? PackFormat::lane16_f16 : PackFormat::lane16_f32},
                 static_cast<std::uint64_t>(i));
  }
}

TEST(Lane16StridedScores, RefusesWithAReason) {
  for (const auto* k : lane16_kernels(kernel::strided_scores_list)) {
    op::StridedScores::Args a;
    a.stride = 3;
    a.dk = 64;
    a.packed_k.format = PackFormat::lane16_f16;
    EXPECT_NE(k->why_not(a, 1), nullptr) << k->name;
    a.stride = 4;
    EXPECT_EQ(k->why_not(a, 1), nullptr) << k->name;
    a.first_cell = 8;
    EXPECT_NE(k->why_not(a, 1), nullptr) << k->name;
    a.first_cell = 0;
    a.packed_k.format = PackFormat::pair16_bf16;
    EXPECT_NE(k->why_not(a, 1), nullptr) << k->name;
  }
}

// Long and sparse enough for every chunk, and more rows per KV head than a register tile holds.
// Types, masks and lists by pairs: every two of them meet.
TEST(Lane16Attend, ManyChunksAndWideGroups) {
  constexpr Dtype kTypes[] = {Dtype::f16, Dtype::f32, Dtype::bf16};
  constexpr Lists kLists[] = {Lists::shared, Lists::per_kv_head, Lists::per_head};
  int turn = 0;  // under sanitizers a kernel takes each type and each kind of lists once, and three kernels all pairs
  for (const auto* k : lane16_kernels(kernel::attend_list)) {
    int taken = 0;
    ++turn;
    for (int i = 0; i < 9; ++i) {
      if (kThin > 1 && (i / 3 + turn) % 3 != i % 3) continue;
      const Dtype kv = kTypes[i / 3];
      const Lists lists = kLists[i % 3];
      const MaskKind mask = i % 2 ? MaskKind::random : MaskKind::dense;
      const Gather gather = mask == MaskKind::random ? Gather::some : Gather::none;
      taken += check_attend(*k, {.hq = 8, .hkv = 1, .dk = 16, .dv = 96, .n_rows = 7, .n_cells = 5000, .block_q = 4,
                                 .mask = mask, .lists = lists, .gather = gather, .kv = kv, .resume = lists != Lists::shared}, Precision::high);
      taken += check_attend(*k, {.hq = 4, .hkv = 2, .dk = 32, .dv = 64, .n_rows = 1, .n_cells = 20001, .mask = mask,
                                 .lists = lists, .gather = gather, .kv = kv, .sinks = true}, Precision::high);
    }
    EXPECT_GT(taken, 0) << k->name;
  }
}

// The state that one call leaves is the start of the next: half the cells, then all others, equals
// all at once.
TEST(Lane16Attend, StateIsHandedOn) {
  for (const auto* k : lane16_kernels(kernel::attend_list)) {
    AttendSpec spec{.hq = 4, .hkv = 2, .dk = 64, .dv = 64, .n_rows = 5, .n_cells = 512, .mask = MaskKind::dense, .seed = 3};
    AttendCase c(spec);
    AttendResult whole, halves;
    const auto pool = make_thread_pool(2);
    Workspace space;
    op::Attend::Args a = c.args(PackFormat::lane16_f16, Precision::high, whole);
    if (k->why_not(a, 2)) continue;
    run_kernel(*k, a, *pool, space);

    a = c.args(PackFormat::lane16_f16, Precision::high, halves);
    const std::size_t rows = static_cast<std::size_t>(spec.hq * spec.n_rows);
    std::vector<float> m(rows, -INFINITY), l(rows, 0.0f), acc(rows * static_cast<std::size_t>(spec.dv), 0.0f);
    a.resume = {m.data(), l.data(), acc.data()};
    for (const int part : {0, 1}) {
      const TileRun run{part * 8, part * 8 + 8, -1};
      const std::int32_t ptr[2] = {0, 1};
      a.runs.runs = &run;
      a.runs.row_ptr = ptr;
      a.normalise = part == 1;
      run_kernel(*k, a, *pool, space);
    }
    const auto d = c.distance(halves, whole);
    EXPECT_TRUE(d.same_shape) << k->name;
    EXPECT_LE(d.out, 2e-6) << k->name;
    EXPECT_LE(d.lse, 2e-6) << k->name;
  }
}

}  // namespace
}  // namespace lacuna::test
