// SPDX-License-Identifier: Apache-2.0
// op attend with pv_skip: every kernel that takes it leaves out only what the definition allows a group of
// one row, something where there is something, and nothing else.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/machine.h"
#include "engine/lower.h"
#include "engine/pick.h"
#include "support/attend_case.h"
#include "support/thin.h"

namespace lacuna::test {
namespace {

constexpr double kLn2 = 0.69314718055994530942;

// Odd tiles have small keys: where the even ones reach high scores, they do not matter.
class Skipping {
 public:
  explicit Skipping(const AttendSpec& spec) : c(spec) {
    AttendResult unused;
    const op::Attend::Args a = c.args(PackFormat::none, Precision::high, unused);
    for (std::int64_t cell = 0; cell < spec.n_cells; ++cell)
      if (cell / kTileKeys % 2 == 1)
        for (std::int64_t i = 0; i < spec.hkv * spec.dk; ++i) {
          const std::int64_t at = cell * spec.hkv * spec.dk + i;
          store_as(const_cast<void*>(a.k), spec.kv, at, 0.02f * element(a.k, a.k_type, at));
        }
  }
  // log2 units; negative = off.
  AttendResult run(const kernel::Kernel<op::Attend>& k, float units, ParallelFor& pool = one()) {
    AttendResult r;
    op::Attend::Args a = args(k, units, r);
    Workspace space;
    std::memset(space.scratch.grow(1 << 20), 0xff, 1 << 20);
    run_kernel(k, a, pool, space);
    return r;
  }
  bool takes(const kernel::Kernel<op::Attend>& k) {
    AttendResult r;
    const op::Attend::Args a = args(k, 5, r);
    return missing_features(detect_features(), k.needs).empty() && !(k.why_not && k.why_not(a, 1));
  }
  static ParallelFor& one() {
    static const auto pool = make_thread_pool(1);
    return *pool;
  }

  // Exact weights of a row relative to its largest score, and which of them may be left out, by the
  // definition for a group of that row alone. `slack`: log2 units that rounding may move a threshold.
  struct Row {
    double all = 0, may = 0, top = -INFINITY;  // sums of exp(s - top)
    int tiles = 0;
  };
  Row row(int h, int i, double units, double slack) {
    AttendResult r;
    const op::Attend::Args a = c.args(PackFormat::none, Precision::high, r);
    const std::int32_t* list = a.runs.list(h, i / a.runs.block_q);
    const std::int64_t at = static_cast<std::int64_t>(h) * a.n_rows + i;
    struct Tile {
      std::vector<double> s;
      bool may = false;
    };
    std::vector<Tile> tiles;
    Row out;
    double before = a.resume.m ? a.resume.m[at] : -INFINITY;
    for (std::int32_t e = list[0]; e < list[1]; ++e)
      for (std::int32_t t = a.runs.runs[e].begin; t < a.runs.runs[e].end; ++t) {
        const TileRun& run = a.runs.runs[e];
        Tile tile;
        double most = -INFINITY;
        for (int b = 0; b < kTileKeys; ++b) {
          if (run.bits >= 0 && !(a.runs.words[std::int64_t{run.bits} * a.runs.block_q + i % a.runs.block_q] >> b & 1u)) continue;
          tile.s.push_back(score(a, h, i, a.runs.cell(t, b)));
          most = std::max(most, tile.s.back());
        }
        const bool last = e + 1 == list[1] && t + 1 == run.end;
        tile.may = run.bits < 0 && !last && (most - before) / kLn2 + units - slack <= 0;
        before = std::max(before, most);
        tiles.push_back(tile);
      }
    out.top = before;
    if (a.sinks) out.top = std::max<double>(out.top, a.sinks[h]);
    for (const Tile& t : tiles) {
      out.tiles += t.may;
      for (const double s : t.s) {
        out.all += std::exp(s - out.top);
        if (t.may) out.may += std::exp(s - out.top);
      }
    }
    if (a.resume.m && a.resume.l[at] > 0) out.all += a.resume.l[at] * std::exp(a.resume.m[at] - out.top);
    if (a.sinks && out.all > 0) out.all += std::exp(a.sinks[h] - out.top);
    return out;
  }

  AttendCase c;

 private:
  op::Attend::Args args(const kernel::Kernel<op::Attend>& k, float units, AttendResult& r) {
    const Precision p = k.pack == PackFormat::pair16_bf16 ? Precision::fast : Precision::high;
    op::Attend::Args a = c.args(format_for(k, c.s.cache()), p, r);
    units_.assign(static_cast<std::size_t>(a.hq), units);
    if (units >= 0) a.pv_skip = units_.data();
    return a;
  }
  static double score(const op::Attend::Args& a, int h, int i, std::int64_t cell) {
    double s = 0;
    for (int d = 0; d < a.dk; ++d)
      s += static_cast<double>(a.q[h * a.q_head + i * a.q_row + d]) * element(a.k, a.k_type, h / (a.hq / a.hkv) * a.k_head + cell * a.k_cell + d);
    s *= a.scale;
    if (a.softcap > 0) s = a.softcap * std::tanh(s / a.softcap);
    if (a.bias) s += (a.slope ? a.slope[h] : 1.0) * half_to_float(a.bias[i * a.bias_row + cell]);
    return s;
  }
  std::vector<float> units_;
};

std::vector<AttendSpec> specs() {
  std::vector<AttendSpec> all;
  for (const MaskKind mask : {MaskKind::dense, MaskKind::causal, MaskKind::random})
    for (const int rows : {5, 64, 130})
      all.push_back({.hq = 4, .hkv = 2, .dk = 32, .dv = 96, .n_rows = rows, .n_cells = 700, .mask = mask, .spread = 5.0f,
                     .seed = static_cast<std::uint64_t>(rows)});
  AttendSpec s{.hq = 2, .hkv = 1, .dk = 40, .dv = 64, .n_rows = 70, .n_cells = 500, .mask = MaskKind::dense, .spread = 5.0f, .seed = 8};
  s.sinks = s.resume = true;
  all.push_back(s);
  s.softcap = 30.0f;
  s.normalise = false;
  all.push_back(s);
  s.resume = false;
  s.bias = s.slopes = s.normalise = true;
  all.push_back(s);
  s = {.hq = 3, .hkv = 3, .dk = 64, .dv = 32, .n_rows = 40, .n_cells = 600, .block_q = 20, .mask = MaskKind::dense, .lists = Lists::per_head,
       .gather = Gather::some, .spread = 5.0f, .seed = 9};
  all.push_back(s);
  return all;
}

class PvSkip : public testing::TestWithParam<const kernel::Kernel<op::Attend>*> {
 protected:
  // Calls each(case) for every spec that the kernel takes.
  template <class Each>
  void over(const Each& each) {
    if (!missing_features(detect_features(), GetParam()->needs).empty()) GTEST_SKIP() << GetParam()->name << " does not run here";
    int taken = 0;
    for (const AttendSpec& spec : specs()) {
      Skipping s(spec);
      if (!s.takes(*GetParam())) continue;
      ++taken;
      SCOPED_TRACE(std::string(GetParam()->name) + ": " + spec.line());
      each(s);
    }
    if (taken == 0) GTEST_SKIP() << GetParam()->name << " refuses pv_skip";
  }
};

TEST_P(PvSkip, InfinityIsOff) {
  over([](Skipping& s) {
    EXPECT_TRUE(s.run(*GetParam(), INFINITY).same_bits(s.run(*GetParam(), -1)));
  });
}

TEST_P(PvSkip, FiftyChangesNothing) {
  over([](Skipping& s) {
    const auto d = s.c.distance(s.run(*GetParam(), 50), s.run(*GetParam(), -1));
    EXPECT_TRUE(d.same_shape);
    EXPECT_LE(d.out, 1e-12);
    EXPECT_LE(d.lse, 1e-12);
  });
}

TEST_P(PvSkip, DoesNotDependOnWorkers) {
  const auto three = make_thread_pool(3);
  over([&](Skipping& s) {
    for (const float units : {0.0f, 4.0f}) EXPECT_TRUE(s.run(*GetParam(), units).same_bits(s.run(*GetParam(), units, *three)));
  });
}

// The log-sum tells what was left out: no more than the definition allows, which is at most 2^-units of the
// row's largest weight for each key; and in all something, for there are tiles that do not matter.
TEST_P(PvSkip, LeavesOutNoMoreThanTheDefinitionAllows) {
  double lost = 0, allowed = 0;
  int seen = 0;
  over([&](Skipping& s) {
    const bool bf16 = GetParam()->pack == PackFormat::pair16_bf16;
    const double close = bf16 ? 0.03 : 2e-5;  // of a log-sum, and 0.25 log2 units where scores are rounded
    for (const float units : {0.0f, 3.0f, 5.0f, 8.0f}) {
      const AttendResult some = s.run(*GetParam(), units), all = s.run(*GetParam(), -1);
      for (int h = 0; h < s.c.s.hq; ++h)
        for (int i = 0; i < s.c.s.n_rows; i += kThin) {
          const std::int64_t at = static_cast<std::int64_t>(h) * s.c.s.n_rows + i;
          const Skipping::Row row = s.row(h, i, units, bf16 ? 0.25 : 1e-3);
          if (row.all == 0) continue;
          const bool state = !some.m.empty() && !s.c.s.normalise;
          const double kept = state ? some.m[at] + std::log(some.l[at]) : some.lse[37 + at];
          const double whole = state ? all.m[at] + std::log(all.l[at]) : all.lse[37 + at];
          const double share = 1 - std::exp(kept - whole);
          ASSERT_GE(share, -1e-5) << "units " << units << " head " << h << " row " << i;
          ASSERT_LE(share, row.may / row.all + close) << "units " << units << " head " << h << " row " << i;
          ASSERT_LE(row.may, row.tiles * kTileKeys * std::exp2(-units + 0.25) * (1 + 1e-6));
          lost += share;
          allowed += row.may / row.all;
          ++seen;
        }
    }
  });
  if (seen > 0) {
    EXPECT_GT(allowed, 0.0);
    EXPECT_GT(lost, 0.02 * allowed) << "tiles that do not matter are not left out";
  }
}

TEST_P(PvSkip, LessIsLeftOutAsTheThresholdRises) {
  over([](Skipping& s) {
    const AttendResult exact = s.c.reference();
    double last = INFINITY;
    for (const float units : {0.0f, 2.0f, 4.0f, 8.0f, 16.0f, 50.0f}) {
      const AttendResult r = s.run(*GetParam(), units);
      double lost = 0;
      for (std::size_t i = 0; i < r.lse.size(); ++i)
        if (std::isfinite(r.lse[i]) && std::isfinite(exact.lse[i])) lost += static_cast<double>(exact.lse[i]) - r.lse[i];
      EXPECT_LE(lost, last + 1e-4 * static_cast<double>(r.lse.size())) << units;
      last = lost;
    }
  });
}

TEST_P(PvSkip, NanStaysInItsRow) {
  over([](Skipping& s) {
    if (s.c.s.mask != MaskKind::dense) return;
    AttendResult r;
    const op::Attend::Args a = s.c.args(PackFormat::none, Precision::high, r);
    const_cast<float*>(a.q)[a.q_head + 3 * a.q_row + 3] = NAN;
    const AttendResult got = s.run(*GetParam(), 2);
    for (int h = 0; h < s.c.s.hq; ++h)
      for (int i = 0; i < s.c.s.n_rows; ++i) {
        const std::int64_t at = static_cast<std::int64_t>(h) * s.c.s.n_rows + i;
        const float x = got.l.empty() || s.c.s.normalise ? got.lse[static_cast<std::size_t>(37 + at)] : got.l[static_cast<std::size_t>(at)];
        EXPECT_EQ(std::isnan(x), h == 1 && i == 3) << h << " " << i;
      }
  });
}

std::string name(const testing::TestParamInfo<const kernel::Kernel<op::Attend>*>& info) {
  std::string text = info.param->name;
  std::replace(text.begin(), text.end(), '.', '_');
  return text;
}
INSTANTIATE_TEST_SUITE_P(List, PvSkip, testing::ValuesIn(kernel::attend_list.begin(), kernel::attend_list.end()), name);

// Error against exact attention, in the readable reference: it rises as the threshold falls.
TEST(PvSkipReference, ErrorGrowsAsTheThresholdFalls) {
  Skipping s({.hq = 2, .hkv = 1, .dk = 32, .dv = 32, .n_rows = 64, .n_cells = 900, .mask = MaskKind::dense, .spread = 4.0f, .seed = 4});
  const auto* ref = find_attend("cpu.ref");
  ASSERT_NE(ref, nullptr);
  const AttendResult exact = s.run(*ref, -1);
  double last = 0;
  for (const float units : {50.0f, 20.0f, 12.0f, 8.0f, 6.0f, 4.0f, 2.0f, 1.0f, 0.0f}) {
    const AttendResult r = s.run(*ref, units);
    double error = 0;
    for (std::size_t i = 0; i < r.out.size(); ++i)
      if (std::isfinite(r.out[i])) error += std::abs(static_cast<double>(r.out[i]) - exact.out[i]);
    EXPECT_GE(error, last) << units;
    last = error;
  }
  EXPECT_GT(last, 0.1);
}

TEST(PvSkipPlan, IsChecked) {
  const Grid grid{4, 10, 100, 90};
  Plan p = dense_plan("");
  EXPECT_TRUE(check_plan(p, grid, 2, 100).ok());
  EXPECT_TRUE(is_dense(p));
  EXPECT_EQ(pv_skip_of(p), nullptr);
  p.pv_skip.assign(4, INFINITY);
  EXPECT_TRUE(check_plan(p, grid, 2, 100).ok());
  EXPECT_TRUE(is_dense(p));
  EXPECT_EQ(pv_skip_of(p), nullptr);
  p.pv_skip[2] = 0;
  EXPECT_TRUE(check_plan(p, grid, 2, 100).ok());
  EXPECT_FALSE(is_dense(p));
  EXPECT_EQ(pv_skip_of(p), p.pv_skip.data());
  for (const float bad : {-0.5f, -INFINITY, NAN}) {
    p.pv_skip[2] = bad;
    ASSERT_FALSE(check_plan(p, grid, 2, 100).ok()) << bad;
    EXPECT_NE(check_plan(p, grid, 2, 100).error().what.find("pv_skip"), std::string::npos);
  }
  p.pv_skip.assign(3, 1.0f);
  EXPECT_NE(check_plan(p, grid, 2, 100).error().what.find("pv_skip of 3 heads"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::test
