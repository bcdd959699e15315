// SPDX-License-Identifier: Apache-2.0
// Lowering against the element oracle of pattern/laws.h, over random masks and patterns.
#include "engine/lower.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/half.h"
#include "base/rng.h"
#include "pattern/laws.h"

namespace lacuna {
namespace {

constexpr std::uint16_t kHidden = 0xfc00;

// A cache with rows of several sequences, as a host sees it.
struct Scene {
  std::int32_t n_rows = 0;
  std::int64_t n_cells = 0;
  std::vector<std::uint16_t> data;
  std::vector<std::int32_t> row_cell, cell_pos;
  std::vector<std::int64_t> row_pos;
  bool announced = true;
  Mask mask() const {
    Mask m;
    m.data = data.data();
    m.row_stride = n_cells + 3;
    if (announced) {
      m.row_cell = row_cell.data();
      m.cell_pos = cell_pos.data();
    }
    return m;
  }
};

struct SceneOptions {
  std::int32_t sequences = 1;
  std::int64_t window = 0;  // the model's own sliding window
  bool scattered = false;   // cells in random order, some belonging to nobody
  bool biased = false;      // finite values: ALiBi
  bool announced = true;
};

Scene make_scene(Rng& rng, const SceneOptions& o) {
  Scene s;
  s.announced = o.announced;
  std::vector<std::int64_t> length, fresh;  // keys and rows of each sequence
  for (std::int32_t q = 0; q < o.sequences; ++q) {
    length.push_back(1 + static_cast<std::int64_t>(rng.below(150)));
    fresh.push_back(1 + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(std::min<std::int64_t>(length.back(), 90)))));
  }
  const std::int64_t used = std::accumulate(length.begin(), length.end(), std::int64_t{0});
  s.n_cells = used + (o.scattered ? static_cast<std::int64_t>(rng.below(70)) : 0);
  std::vector<std::int32_t> cells(static_cast<std::size_t>(s.n_cells));
  std::iota(cells.begin(), cells.end(), 0);
  if (o.scattered)
    for (std::size_t i = cells.size(); i > 1; --i) std::swap(cells[i - 1], cells[rng.below(i)]);
  s.cell_pos.assign(cells.size(), -1);
  std::size_t at = 0;
  s.n_rows = static_cast<std::int32_t>(std::accumulate(fresh.begin(), fresh.end(), std::int64_t{0}));
  s.data.assign(static_cast<std::size_t>(s.n_rows * (s.n_cells + 3)), kHidden);
  std::int32_t row = 0;
  for (std::int32_t q = 0; q < o.sequences; ++q) {
    const std::int32_t* own = &cells[at];
    at += static_cast<std::size_t>(length[static_cast<std::size_t>(q)]);
    const std::int64_t n = length[static_cast<std::size_t>(q)];
    for (std::int64_t j = 0; j < n; ++j) s.cell_pos[static_cast<std::size_t>(own[j])] = static_cast<std::int32_t>(j);
    for (std::int64_t p = n - fresh[static_cast<std::size_t>(q)]; p < n; ++p, ++row) {
      s.row_cell.push_back(own[p]);
      s.row_pos.push_back(p);
      for (std::int64_t j = o.window > 0 ? std::max<std::int64_t>(0, p - o.window + 1) : 0; j <= p; ++j)
        s.data[static_cast<std::size_t>(row * (s.n_cells + 3) + own[j])] =
            o.biased ? float_to_half(-0.25f * static_cast<float>(p - j)) : std::uint16_t{0};
    }
  }
  return s;
}

constexpr std::int32_t kHeads = 6, kKvHeads = 3;

Ranges random_ranges(Rng& rng, const Segment& s, std::int64_t n_cells, std::int32_t block_q) {
  Ranges p;
  p.of = rng.below(2) ? Ranges::Of::keys : Ranges::Of::cells;
  constexpr std::int32_t kLists[] = {1, kKvHeads, kHeads};
  p.heads = kLists[rng.below(3)];
  p.block_q = block_q;
  p.n_rows = s.rows();
  p.n = p.of == Ranges::Of::keys ? s.n_keys : n_cells;
  for (std::int32_t h = 0; h < p.heads; ++h) {
    p.row_ptr.push_back(static_cast<std::int32_t>(p.ranges.size()));
    for (std::int32_t b = 0; b < p.q_blocks(); ++b) {
      for (std::int64_t at = static_cast<std::int64_t>(rng.below(5)); at < p.n;) {
        const auto end = std::min<std::int64_t>(p.n, at + 1 + static_cast<std::int64_t>(rng.below(2) ? 0 : rng.below(70)));
        p.ranges.push_back({static_cast<std::int32_t>(at), static_cast<std::int32_t>(end)});
        at = end + 1 + static_cast<std::int64_t>(rng.below(20));
      }
      p.row_ptr.push_back(static_cast<std::int32_t>(p.ranges.size()));
    }
  }
  return p;
}

Pattern random_pattern(Rng& rng, const Segment& s, std::int64_t n_cells, int kind, std::int32_t block_q) {
  const auto upto = [&](std::int64_t n) { return static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(n) + 1)); };
  if (kind == 0) return Dense{};
  if (kind == 1 || kind == 2)
    return Window{.sink = upto(40), .window = upto(100), .dense_from = kind == 1 ? -1 : upto(s.n_keys)};
  if (kind == 3) return random_ranges(rng, s, n_cells, block_q);
  BlockMap map;
  constexpr std::int32_t kBlocks[] = {16, 32, 48, 64, 100, 128}, kLists[] = {1, kKvHeads, kHeads};
  map.heads = kLists[rng.below(3)];
  map.block_q = block_q;
  map.block_k = kBlocks[rng.below(6)];
  map.n_rows = s.rows();
  map.n_keys = s.n_keys;
  for (std::int32_t h = 0; h < map.heads; ++h) {
    map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    for (std::int32_t b = 0; b < map.q_blocks(); ++b) {
      for (std::int32_t c = 0; c < map.k_blocks(); ++c)
        if (rng.below(3)) map.cols.push_back(c);
      map.row_ptr.push_back(static_cast<std::int32_t>(map.cols.size()));
    }
  }
  return map;
}

// Some rows by themselves keep what they keep among all, and no plan is "everything".
void check_lone_rows(Rng& rng, const Plan& plan, const Visibility& v, const Segment& s, std::int32_t block_q, const std::string& what) {
  std::vector<std::int32_t> rows, call_rows;
  for (std::int32_t i = 0; i < s.rows(); ++i)
    if (rng.below(4) == 0) rows.push_back(i), call_rows.push_back(s.row_begin + i);
  if (rows.empty()) return;
  LoweredRuns all, some, dense;
  const LowerOptions how{.q_heads = kHeads, .kv_heads = kKvHeads, .block_q = block_q};
  LowerOptions only = how;
  only.only = rows;
  lower_plan(plan, v, s, how, all);
  lower_plan(plan, v, s, only, some);
  lower_dense_rows(v, call_rows, dense);
  ASSERT_EQ(law_runs_are_well_formed(some.view()), "") << what;
  ASSERT_EQ(law_runs_are_well_formed(dense.view()), "") << what;
  double pairs = 0;
  for (std::int32_t h = 0; h < kHeads; ++h)
    for (std::size_t i = 0; i < rows.size(); ++i)
      for (std::int64_t c = 0; c < v.n_cells(); ++c) {
        const bool kept = run_bit(some.view(), h, static_cast<std::int32_t>(i), c);
        pairs += kept;
        ASSERT_EQ(kept, run_bit(all.view(), h, rows[i], c)) << what << " head " << h << " row " << rows[i] << " cell " << c;
        ASSERT_EQ(run_bit(dense.view(), h, static_cast<std::int32_t>(i), c), v.sees(call_rows[i], c)) << what;
      }
  double listed = 0;
  for (const double n : some.list_pairs) listed += n * kHeads / some.heads;
  ASSERT_EQ(listed, pairs) << what;
}

// Plans of one pattern, and plans that send every head its own way.
void check_all_patterns(Rng& rng, const Visibility& v, const std::string& what) {
  LoweredRuns runs;  // one for all, as a session has it
  constexpr std::int32_t kPreferred[] = {1, 16, 64, 100, 128};
  for (const Segment& s : v.segments())
    for (int kind = 0; kind < 6; ++kind) {  // 5: routed
      Plan plan;
      const std::int32_t block_q = kPreferred[rng.below(5)];
      if (kind < 5) {
        plan.patterns[0] = random_pattern(rng, s, v.n_cells(), kind, block_q);
      } else {
        plan.patterns.clear();
        for (int k = 1; k < 5; ++k) plan.patterns.push_back(random_pattern(rng, s, v.n_cells(), k, block_q));
        for (std::int32_t h = 0; h < kHeads; ++h) plan.routes.push_back(static_cast<Route>(static_cast<int>(rng.below(6)) - 2));
        if (rng.below(2))  // groups of one route
          for (std::int32_t h = 0; h < kHeads; ++h) plan.routes[static_cast<std::size_t>(h)] = plan.routes[static_cast<std::size_t>(h / 2 * 2)];
      }
      const Status good = check_plan(plan, {kHeads, s.rows(), s.n_keys, 0}, kKvHeads, v.n_cells());
      ASSERT_TRUE(good.ok()) << good.error().what;
      lower_plan(plan, v, s, {.q_heads = kHeads, .kv_heads = kKvHeads, .block_q = block_q_of(plan, block_q), .gather = rng.below(4) != 0}, runs);
      const TileRuns t = runs.view();
      ASSERT_EQ(law_runs_are_well_formed(t), "") << what << " kind " << kind;
      const Pattern dense = Dense{};
      const auto pattern_of = [&](std::int32_t h) -> const Pattern* {
        const Route r = plan.route(h);
        return r == kRouteOff ? nullptr : r == kRouteFull ? &dense : &plan.patterns[static_cast<std::size_t>(r)];
      };
      std::int64_t pairs = 0;
      ASSERT_EQ(law_runs_agree_with_keeps(t, pattern_of, kHeads, v, s, &pairs), "")
          << what << " kind " << kind << " rows " << s.row_begin << ".." << s.row_end;
      ASSERT_EQ(runs.attended_pairs * runs.heads_per_list, static_cast<double>(pairs)) << what;
      check_lone_rows(rng, plan, v, s, block_q_of(plan, block_q), what + " kind " + std::to_string(kind));
      if (testing::Test::HasFatalFailure()) return;
    }
}

TEST(Lower, EveryBitEqualsVisibleAndKept) {
  Rng rng(5);
  for (int round = 0; round < 60; ++round) {
    SceneOptions o;
    o.sequences = 1 + static_cast<std::int32_t>(rng.below(3));
    o.window = rng.below(3) ? 0 : 1 + static_cast<std::int64_t>(rng.below(60));
    o.scattered = rng.below(2);
    o.biased = rng.below(4) == 0;
    o.announced = rng.below(4) != 0;
    const Scene scene = make_scene(rng, o);
    const Visibility v = Visibility::from_mask(scene.mask(), scene.n_rows, scene.n_cells);
    check_all_patterns(rng, v, "round " + std::to_string(round));
    if (HasFatalFailure()) return;
  }
}

// Masks that no host makes: any bits at all.
TEST(Lower, RandomMasks) {
  Rng rng(6);
  for (int round = 0; round < 40; ++round) {
    const auto n_rows = static_cast<std::int32_t>(1 + rng.below(70));
    const auto n_cells = static_cast<std::int64_t>(1 + rng.below(130));
    std::vector<std::uint16_t> data(static_cast<std::size_t>(n_rows * n_cells));
    for (auto& x : data) x = rng.below(8) < static_cast<std::uint64_t>(round % 9) ? std::uint16_t{0} : kHidden;
    Mask m;
    m.data = data.data();
    m.row_stride = n_cells;
    const Visibility v = Visibility::from_mask(m, n_rows, n_cells);
    std::int32_t next = 0;
    for (const Segment& s : v.segments()) {
      ASSERT_EQ(s.row_begin, next);
      next = s.row_end;
      for (std::int64_t j = 0; j < s.n_keys; ++j) ASSERT_EQ(s.key(s.cell(j)), j);
    }
    ASSERT_EQ(next, n_rows);
    check_all_patterns(rng, v, "random round " + std::to_string(round));
    if (HasFatalFailure()) return;
  }
}

TEST(Lower, CausalOfEveryResidue) {
  Rng rng(7);
  for (std::int32_t n_rows : {1, 2, 31, 32, 33, 64, 65})
    for (std::int64_t n_cells : {1, 31, 32, 33, 64, 95, 97})
      for (std::int64_t window : {0, 1, 32, 40}) {
        const Visibility v = Visibility::causal(n_rows, n_cells, window);
        for (std::int32_t i = 0; i < n_rows; ++i) {
          std::int64_t count = 0;
          for (std::int64_t c = 0; c < n_cells; ++c) {
            const std::int64_t own = i + n_cells - n_rows;
            ASSERT_EQ(v.sees(i, c), c <= own && (window == 0 || own - c < window));
            count += v.sees(i, c);
          }
          ASSERT_EQ(v.visible_keys(i), count);
        }
        check_all_patterns(rng, v, "causal " + std::to_string(n_rows) + " x " + std::to_string(n_cells));
        if (HasFatalFailure()) return;
      }
}

// Sums of these with key and row numbers would overflow: refused by name before anything adds them.
TEST(CheckPlan, NamesSizesBeyondArithmetic) {
  const Grid grid{kHeads, 10, 100, 0};
  const auto refused = [&](Pattern pattern, std::initializer_list<const char*> parts) {
    const Status s = check_plan(plan_of(std::move(pattern)), grid, kKvHeads, 100);
    ASSERT_FALSE(s.ok());
    for (const char* part : parts)
      EXPECT_NE(s.error().what.find(part), std::string::npos) << s.error().what << " has no " << part;
  };
  refused(Window{.sink = INT64_MAX, .window = 1}, {"window: sink of 9223372036854775807 keys", "0..1099511627776"});
  refused(Window{.sink = 1, .window = INT64_MIN}, {"window: window of -9223372036854775808 keys", "0..1099511627776"});
  refused(Window{.sink = -1, .window = 1}, {"sink of -1"});
  BlockMap map;
  map.block_q = INT32_MAX;
  map.n_rows = 10;
  map.n_keys = 100;
  refused(map, {"block map: blocks of 2147483647 rows", "1..128"});
  Ranges ranges;
  ranges.block_q = INT32_MAX;
  ranges.n_rows = 10;
  ranges.n = 100;
  refused(ranges, {"ranges: blocks of 2147483647 rows", "1..128"});
  EXPECT_TRUE(
      check_plan(plan_of(Window{.sink = std::int64_t{1} << 40, .window = std::int64_t{1} << 40}), grid, kKvHeads, 100)
          .ok());
}

TEST(CheckPlan, NamesAnOffsetThatFallsByOne) {
  Ranges p;
  p.block_q = 5;
  p.n_rows = 10;
  p.n = 100;
  p.row_ptr = {0, 1, 1};
  p.ranges = {{0, 1}};
  EXPECT_TRUE(check_plan(plan_of(p), {kHeads, 10, 100, 0}, kKvHeads, 100).ok());
  p.row_ptr = {0, 1, 0};
  const Status s = check_plan(plan_of(p), {kHeads, 10, 100, 0}, kKvHeads, 100);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().what.find("row_ptr[2] is 0, less than the entry before it (1)"), std::string::npos);
}

TEST(Visibility, ReadsEveryBitAndBiasOfAMask) {
  Rng rng(8);
  constexpr std::uint16_t kValues[] = {0, 0, 0, kHidden, kHidden, kHidden, 0x8000, 0x3c00, 0x7c00, 0xfbff, 0x0001};
  for (int round = 0; round < 300; ++round) {
    const auto n_rows = static_cast<std::int32_t>(1 + rng.below(3));
    const auto n_cells = static_cast<std::int64_t>(1 + rng.below(200));
    const std::size_t kinds = round % 3 == 0 ? 3 : round % 3 == 1 ? 7 : 11;  // all visible, no bias, everything
    std::vector<std::uint16_t> data(static_cast<std::size_t>(n_rows * n_cells));
    bool bias = false;
    for (std::size_t i = 0; i < data.size(); ++i) {
      // Long stretches of one value, so that whole tiles are met too.
      data[i] = i && rng.below(20) ? data[i - 1] : kValues[rng.below(kinds)];
      bias = bias || (data[i] != 0 && data[i] != kHidden && data[i] != 0x8000);
    }
    Mask m;
    m.data = data.data();
    m.row_stride = n_cells;
    const Visibility v = Visibility::from_mask(m, n_rows, n_cells);
    ASSERT_EQ(v.additive(), bias);
    for (std::int32_t i = 0; i < n_rows; ++i) {
      std::int64_t count = 0;
      for (std::int64_t c = 0; c < n_cells; ++c) {
        ASSERT_EQ(v.sees(i, c), data[static_cast<std::size_t>(i * n_cells + c)] != kHidden) << round;
        count += v.sees(i, c);
      }
      ASSERT_EQ(v.visible_keys(i), count);
      const std::int64_t past = v.n_tiles() * kTileKeys - n_cells;
      if (past) {
        ASSERT_EQ(v.words(i)[v.n_tiles() - 1] >> (kTileKeys - past), 0u) << "bits beyond n_cells";
      }
    }
  }
}

TEST(Visibility, FindsSequencesAndNumbersTheirKeysByPosition) {
  Rng rng(9);
  for (int round = 0; round < 200; ++round) {
    SceneOptions o;
    o.sequences = 1 + static_cast<std::int32_t>(rng.below(4));
    o.scattered = rng.below(2);
    const Scene scene = make_scene(rng, o);
    const Visibility v = Visibility::from_mask(scene.mask(), scene.n_rows, scene.n_cells);
    ASSERT_EQ(v.segments().size(), static_cast<std::size_t>(o.sequences));
    for (const Segment& s : v.segments())
      for (std::int32_t i = 0; i < s.rows(); ++i) {
        const auto row = static_cast<std::size_t>(s.row_begin + i);
        ASSERT_EQ(s.key_of_row[static_cast<std::size_t>(i)], scene.row_pos[row]);
        ASSERT_EQ(s.cell(scene.row_pos[row]), scene.row_cell[row]);
      }
  }
}

}  // namespace
}  // namespace lacuna
