// SPDX-License-Identifier: Apache-2.0
// Side data: what the reference writes and scores against brute force over the raw keys, every kernel
// against the reference, and the facts that estimators rest on.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/buffer.h"
#include "engine/pick.h"
#include "op/side_scores_ref.h"
#include "support/side_case.h"
#include "support/thin.h"

namespace lacuna::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kPages[] = {8, 16, 32, 64}, kPools[] = {32, 64, 128};

struct SideCase {
  Dtype dtype = Dtype::f16, page_type = Dtype::f16;
  std::int64_t cells = 200;
  int heads = 2, dim = 64, page = 16, labels = 5, pool = 64;
  std::uint64_t seed = 1;
  SideSpec spec() const {
    return {.page = page, .page_type = page_type, .int4 = true, .int8 = true, .labels = labels, .label_heads = 0, .channels = nullptr, .pool = pool};
  }
  std::string line() const {
    return fmt::format("dtype={} bounds={} cells={} heads={} dim={} page={} labels={} pool={} seed={}", name_of(dtype),
                       name_of(page_type), cells, heads, dim, page, labels, pool, seed);
  }
};

// One case per seed: types, pages and pools in turn, sizes of every residue.
SideCase any_case(std::uint64_t seed) {
  SideCase s;
  s.seed = seed;
  s.dtype = static_cast<Dtype>(seed % 5);
  s.page_type = seed / 3 % 2 ? Dtype::f32 : Dtype::f16;
  s.page = kPages[seed % 4];
  s.pool = kPools[seed % 3];
  s.heads = 1 + static_cast<int>(seed % 3);
  s.dim = static_cast<int>(std::vector<int>{64, 16, 1, 40, 80, 128, 7, 96, 33, 256}[seed % 10]);
  if (is_quantised(s.dtype)) s.dim = (s.dim + 31) / 32 * 32;
  s.labels = 1 + static_cast<int>(seed * 5 % 23) % s.dim;
  s.cells = 1 + static_cast<std::int64_t>(seed * 37 % 331);
  return s;
}

op::SideWrite::Args write_args(RawCache& raw, const SideView& to) {
  op::SideWrite::Args a = side_args(raw.tensor(), to);
  a.n = raw.cells;
  return a;
}

void check_write(const kernel::Kernel<op::SideWrite>& k, const SideCase& s) {
  Rng rng(s.seed);
  RawCache raw(s.dtype, s.cells, s.heads, s.dim);
  if (s.seed % 2) raw.fill_bits(rng);
  else raw.fill(rng);
  SideStore shape;
  shape.open(s.spec(), s.dtype, s.cells, s.heads, s.dim);
  GuardedSide want(shape.view()), got(shape.view());
  op::SideWrite::Args a = write_args(raw, want.view);
  // A range, then a list with repeats, then all of it.
  std::vector<std::int32_t> list(20);
  for (auto& c : list) c = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(s.cells)));
  for (int round = 0; round < 3; ++round) {
    a.first = round == 0 ? s.cells / 3 : 0;
    a.n = round == 0 ? (s.cells + 1) / 2 : round == 1 ? static_cast<std::int64_t>(list.size()) : s.cells;
    a.list = round == 1 ? list.data() : nullptr;
    a.to = want.view;
    op::side_write_ref(a);
    a.to = got.view;
    ASSERT_FALSE(k.why_not && k.why_not(a, 1));
    k.run(a, 0, 0, 1, nullptr, nullptr);
    ASSERT_EQ(first_difference(got.view, want.view), "") << k.name << " round " << round << ": " << s.line();
  }
  EXPECT_TRUE(got.intact()) << k.name << ": " << s.line();
  EXPECT_TRUE(want.intact()) << "reference: " << s.line();
}

TEST(SideWriteKernels, EqualTheReferenceBitForBit) {
  for (const auto* k : kernel::side_write_list) {
    if (const std::string missing = missing_features(detect_features(), k->needs); !missing.empty()) {
      std::printf("not run: %s: %s\n", k->name, missing.c_str());
      continue;
    }
    for (std::uint64_t seed = 1; seed <= 240; seed += kThin) check_write(*k, any_case(seed));
  }
}

// Writes of any kind, in any order, end where one pass over the whole cache ends.
TEST(SideWriteKernels, IncrementalEqualsARebuild) {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    const SideCase s = any_case(seed);
    Rng rng(seed);
    RawCache raw(s.dtype, s.cells, s.heads, s.dim);
    PackedTensor kept(PackedTensor::Role::key, s.dtype, s.cells, s.heads, s.dim, Precision::high, {}, {}, make_request(s.spec()));
    for (int step = 0; step < 30; ++step) {
      if (rng.below(12) == 0) {
        std::fill(raw.data.begin(), raw.data.end(), static_cast<unsigned char>(0));
        kept.clear();
      } else if (rng.below(2)) {
        const auto first = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(s.cells)));
        const auto n = 1 + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(s.cells - first)));
        for (std::int64_t c = first; c < first + n; ++c) raw.fill_cell(rng, c);
        kept.write(raw.tensor(), first, n);
      } else {
        std::vector<std::int64_t> cells(1 + rng.below(9));
        for (auto& c : cells) raw.fill_cell(rng, c = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(s.cells))));
        ASSERT_TRUE(kept.write_cells(raw.tensor(), cells.data(), static_cast<std::int64_t>(cells.size())).ok());
      }
      ASSERT_EQ(kept.verify(raw.tensor()), "") << "step " << step << ": " << s.line();
    }
    raw.fill_cell(rng, s.cells - 1);
    EXPECT_NE(kept.verify(raw.tensor()), "") << "a write that nobody reported must be seen: " << s.line();
  }
}

TEST(SideReference, UnwrittenIsZeroAndShortEqualsLong) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    SideCase s = any_case(seed);
    Rng rng(seed);
    RawCache small(s.dtype, s.cells, s.heads, s.dim), large(s.dtype, s.cells + 300, s.heads, s.dim);
    SideStore a, b;
    a.open(s.spec(), s.dtype, small.cells, s.heads, s.dim);
    op::side_write_ref(write_args(small, a.view()));
    EXPECT_EQ(first_difference(a.view(), a.like().view()), "") << "zeros of zeros: " << s.line();
    small.fill(rng);
    std::copy(small.data.begin(), small.data.end(), large.data.begin());
    b.open(s.spec(), s.dtype, large.cells, s.heads, s.dim);
    op::side_write_ref(write_args(small, a.view()));
    op::side_write_ref(write_args(large, b.view()));
    EXPECT_EQ(first_difference(a.view(), b.view()), "") << s.line();
  }
}

struct Channel {
  float zero, scale;
};

// What a channel's 4 bits range over, by the raw keys of a tile (cells past the end are zeros), and as written.
Channel channel(const RawCache& raw, std::int64_t tile, int h, int d) {
  float least = kInfinity, most = -kInfinity;
  for (std::int64_t c = tile * kTileKeys; c < (tile + 1) * kTileKeys; ++c) {
    const float x = c < raw.cells ? raw.get(h, c, d) : 0.0f;
    least = std::min(least, x);
    most = std::max(most, x);
  }
  return {least, (most - least) / 15};
}
Channel range(const Int4Keys& x, std::int64_t tile, int h, int d) {
  const auto* halves = static_cast<const std::uint16_t*>(x.data);
  return {half_to_float(halves[op::int4_range_offset(x, tile, h, d, true)]),
          half_to_float(halves[op::int4_range_offset(x, tile, h, d, false)])};
}

// What a cell's 8 bits count from and by, as written.
struct Rest {
  float centre, scale;
};
Rest rest(const Int8Keys& x, std::int64_t cell, int h, int d) {
  return {bf16_to_float(static_cast<const std::uint16_t*>(x.data)[op::int8_centre_offset(x, cell / kTileKeys, h, d)]),
          static_cast<const float*>(x.data)[op::int8_scale_offset(x, cell, h)]};
}
int number(const Int8Keys& x, std::int64_t cell, int h, int d) { return static_cast<const std::int8_t*>(x.data)[op::int8_offset(x, cell, h, d)]; }

// The definitions of kv/side.h, written a second time over the raw keys.
TEST(SideReference, HoldsWhatItsDefinitionsSay) {
  for (std::uint64_t seed = 0; seed < 30; seed += kThin) {
    const SideCase s = any_case(2 * seed);
    Rng rng(s.seed);
    RawCache raw(s.dtype, s.cells, s.heads, s.dim);
    raw.fill(rng);
    SideStore store;
    store.open(s.spec(), s.dtype, s.cells, s.heads, s.dim);
    op::side_write_ref(write_args(raw, store.view()));
    const SideView& v = store.view();
    const auto bound = [&](std::int64_t p, int h, int d, bool largest) -> float {
      const std::int64_t at = op::page_offset(v.pages, p, h, d, largest);
      return v.pages.type == Dtype::f32 ? static_cast<const float*>(v.pages.data)[at]
                                        : half_to_float(static_cast<const std::uint16_t*>(v.pages.data)[at]);
    };
    for (int h = 0; h < s.heads; ++h)
      for (std::int64_t c = 0; c < s.cells; ++c) {
        for (int d = 0; d < s.dim; ++d) {
          const float x = raw.get(h, c, d);
          ASSERT_LE(bound(c / s.page, h, d, false), x) << s.line();
          ASSERT_GE(bound(c / s.page, h, d, true), x) << s.line();
        }
        const auto* words = static_cast<const std::uint32_t*>(v.int4.data);
        for (int d = 0; d < s.dim; ++d) {
          const Channel x = channel(raw, c / kTileKeys, h, d), y = range(v.int4, c / kTileKeys, h, d);
          ASSERT_LE(y.zero, x.zero) << s.line();
          ASSERT_NEAR(y.zero, x.zero, std::fabs(x.zero) * 0x1p-10f + 0x1p-24f) << s.line();
          ASSERT_GE(y.zero + 15 * y.scale, x.zero + 15 * x.scale - 1e-6f) << "the range reaches the largest: " << s.line();
          ASSERT_LE(y.scale, (x.scale + std::fabs(x.zero) * 0x1p-13f) * 1.001f + 0x1p-23f) << s.line();
          const auto n = static_cast<float>(words[op::int4_offset(v.int4, c, h, d / 8)] >> int4_shift(d % 8) & 15u);
          ASSERT_NEAR(y.zero + y.scale * n, raw.get(h, c, d), y.scale * 0.50001f) << s.line();
        }
        float largest = 0;
        for (int d = 0; d < s.dim; ++d) {
          const Channel x = channel(raw, c / kTileKeys, h, d);
          const Rest y = rest(v.int8, c, h, d);
          const float middle = x.zero + 7.5f * x.scale;  // whose own rounding is the 1e-6
          const auto n = static_cast<float>(number(v.int8, c, h, d));
          ASSERT_NEAR(y.centre, middle, std::fabs(middle) * 0x1.1p-8f + 1e-6f) << s.line();
          ASSERT_NEAR(y.centre + y.scale * n, raw.get(h, c, d), y.scale * 0.50001f) << s.line();
          largest = std::max(largest, std::fabs(raw.get(h, c, d) - y.centre));
        }
        ASSERT_FLOAT_EQ(rest(v.int8, c, h, 0).scale, largest / 127) << "the range reaches the largest and no further: " << s.line();
        for (int i = 0; i < s.labels; ++i) {
          const std::int64_t at = op::label_offset(v.labels, c, h, i);
          const float x = v.labels.type == Dtype::f32 ? static_cast<const float*>(v.labels.data)[at]
                                                      : half_to_float(static_cast<const std::uint16_t*>(v.labels.data)[at]);
          ASSERT_EQ(x, raw.get(h, c, i * s.dim / s.labels)) << s.line();
        }
      }
    for (std::int64_t b = 0; b < v.pooled.blocks(); ++b)
      for (int d = 0; d < s.dim; ++d) {
        double sum = 0;
        for (std::int64_t c = b * s.pool; c < std::min(s.cells, (b + 1) * s.pool); ++c) sum += raw.get(0, c, d);
        ASSERT_NEAR(v.pooled.sum(b, 0)[d], sum, 1e-4) << s.line();
      }
  }
}

// No page is rounded inwards: bounds are the tightest halves on the right side.
TEST(SideReference, HalvesAreRoundedOutwards) {
  RawCache raw(Dtype::f32, 8, 1, 6);
  const float values[] = {1.0003f, -1.0003f, 1e-9f, -1e-9f, 70000.0f, -70000.0f};
  for (std::int64_t c = 0; c < 8; ++c)
    for (int d = 0; d < 6; ++d) raw.set(0, c, d, values[d]);
  for (const auto* k : kernel::side_write_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    SideStore store;
    store.open({.page = 8}, Dtype::f32, 8, 1, 6);
    k->run(write_args(raw, store.view()), 0, 0, 1, nullptr, nullptr);
    const auto* halves = static_cast<const std::uint16_t*>(store.view().pages.data);
    const auto at = [&](int d, bool largest) { return half_to_float(halves[op::page_offset(store.view().pages, 0, 0, d, largest)]); };
    for (int d = 0; d < 6; ++d) EXPECT_TRUE(at(d, false) < values[d] && values[d] < at(d, true)) << k->name << " " << values[d];
    EXPECT_EQ(at(0, false), 1.0f);
    EXPECT_EQ(at(0, true), 1.0f + 0x1p-10f);
    EXPECT_EQ(at(4, false), 65504.0f);
    EXPECT_EQ(at(4, true), kInfinity);
    EXPECT_EQ(at(2, true), 0x1p-24f);
    EXPECT_EQ(at(3, false), -0x1p-24f);
  }
}

TEST(SideStore, LeavesOutWhatDoesNotFit) {
  SideStore store;
  const std::int16_t channels[] = {0, 3, 63, 1}, beyond[] = {0, 3, 64, 1};
  store.open({.page = 12, .int4 = true, .labels = 65, .pool = 48}, Dtype::f16, 100, 2, 64);
  EXPECT_FALSE(store.view().pages.data || store.view().labels.data || store.view().pooled.data);
  EXPECT_TRUE(store.view().int4.data);
  const SideSpec good{.labels = 2, .label_heads = 2, .channels = channels};
  store.open(good, Dtype::f16, 100, 2, 64);
  EXPECT_TRUE(store.view().labels.data);
  EXPECT_TRUE(store.serves(good, 90, 2, 64));
  EXPECT_FALSE(store.serves(good, 101, 2, 64)) << "more cells";
  EXPECT_FALSE(store.serves({.labels = 2}, 90, 2, 64)) << "other channels";
  store.open({.labels = 2, .label_heads = 2, .channels = beyond}, Dtype::f16, 100, 2, 64);
  EXPECT_FALSE(store.view().labels.data) << "a channel out of range";
  store.open(good, Dtype::f16, 100, 1, 64);
  EXPECT_FALSE(store.view().labels.data) << "lists for other heads";
}

// ---- scores ----

struct ScoreCase {
  SideCase side;
  int group = 3, rows = 1, visible = 0;  // 0: null, 1: one for all, 2: per head and row, with empty tiles
  bool sum_group = false, tiles = false;
  std::string line() const {
    return fmt::format("{} group={} rows={} visible={} sum={} tiles={}", side.line(), group, rows, visible, sum_group, tiles);
  }
};

template <class Op>
struct Problem {
  RawCache raw;
  SideStore store;
  std::vector<float> q;
  std::vector<std::uint32_t> words;
  std::vector<std::int32_t> tile_ptr, tiles;
  typename Op::Args a;
  std::int64_t columns = 0;

  explicit Problem(const ScoreCase& s, std::int64_t n_cells)
      : raw(s.side.dtype, s.side.cells, s.side.heads, s.side.dim) {
    Rng rng(s.side.seed);
    raw.fill(rng);
    store.open(s.side.spec(), s.side.dtype, raw.cells, raw.heads, raw.dim);
    op::side_write_ref(write_args(raw, store.view()));
    a.hkv = raw.heads;
    a.hq = raw.heads * s.group;
    a.dk = raw.dim;
    a.n_rows = s.rows;
    a.n_cells = n_cells;
    a.q_row = a.dk + 3;
    a.q_head = a.n_rows * a.q_row;
    q.assign(static_cast<std::size_t>(a.hq * a.q_head), NAN);
    for (int h = 0; h < a.hq; ++h)
      for (int i = 0; i < a.n_rows; ++i)
        for (int d = 0; d < a.dk; ++d) q[static_cast<std::size_t>(h * a.q_head + i * a.q_row + d)] = static_cast<float>(rng.normal());
    a.q = q.data();
    const std::int64_t n = tiles_of(n_cells);
    columns = n * kTileKeys;
    if (s.visible) {
      a.visible_row = s.visible == 2 ? n : 0;
      a.visible_head = s.visible == 2 ? n * a.n_rows : 0;
      words.resize(static_cast<std::size_t>(s.visible == 2 ? a.hq * a.visible_head : n));
      for (auto& w : words) w = rng.below(3) ? static_cast<std::uint32_t>(rng.next() & rng.next()) : 0;
      a.visible = words.data();
    }
    if constexpr (std::is_same_v<Op, op::PageScores>) {
      a.pages = store.view().pages;
      a.sum_group = s.sum_group;
      columns = tiles_of((n_cells + a.pages.page - 1) / a.pages.page) * kTileKeys;
    } else {
      if constexpr (std::is_same_v<Op, op::LabelScores>) a.labels = store.view().labels;
      else if constexpr (std::is_same_v<Op, op::Int4Scores>) a.keys = store.view().int4;
      else a.keys = store.view().int8;
      if (s.tiles) {
        tile_ptr.push_back(0);
        for (int g = 0; g < a.hkv; ++g) {
          for (std::int64_t t = 0; t < n; ++t)
            if (rng.below(2)) tiles.push_back(static_cast<std::int32_t>(t));
          tile_ptr.push_back(static_cast<std::int32_t>(tiles.size()));
        }
        a.only = {tile_ptr.data(), tiles.data()};
      }
    }
    a.score_row = columns + 5;
    a.score_head = a.n_rows * a.score_row + 3;
  }
  std::size_t size() const { return static_cast<std::size_t>(a.hq * a.score_head); }
};

constexpr float kUntouched = 12345.5f;

template <class Number>
void reference(const op::PageScores::Args& a, int g) { op::page_scores_ref<Number>(a, g); }
template <class Number>
void reference(const op::LabelScores::Args& a, int g) { op::label_scores_ref<Number>(a, g); }
template <class Number>
void reference(const op::Int4Scores::Args& a, int g) { op::int4_scores_ref<Number>(a, g); }

template <class Number>
void reference(const op::Int8Scores::Args& a, int g) { op::int8_scores_ref<Number>(a, g); }

// Kernels of whole numbers by their names.
template <class Op>
bool rounds_queries(const kernel::Kernel<Op>& k) {
  return std::string(k.name).find("vnni") != std::string::npos || std::string(k.name).find("amx") != std::string::npos;
}
// Scores with the rounding that kernels of whole numbers may do; for other ops nothing.
template <class Args>
void in_bytes(const Args&, int) {}
template <>
void in_bytes(const op::Int4Scores::Args& a, int g) {
  const int group = a.hq / a.hkv;
  const auto* words = static_cast<const std::uint32_t*>(a.keys.data);
  for (int h = g * group; h < (g + 1) * group; ++h)
    for (int i = 0; i < a.n_rows; ++i)
      for (std::int64_t t = 0; t < tiles_of(a.n_cells); ++t) {
        const float* q = a.q + h * a.q_head + i * a.q_row;
        float largest = 0;
        for (int d = 0; d < a.dk; ++d) largest = std::max(largest, std::fabs(q[d] * range(a.keys, t, g, d).scale));
        const float unit = largest / 127, inverse = unit > 0 ? 1.0f / unit : 0.0f;
        for (std::int64_t c = t * kTileKeys; c < (t + 1) * kTileKeys; ++c) {
          float& score = a.score[h * a.score_head + i * a.score_row + c];
          if (!std::isfinite(score) || score == kUntouched) continue;
          double sum = 0;
          for (int d = 0; d < a.dk; ++d) {
            const Channel y = range(a.keys, t, g, d);
            const std::uint32_t n = words[op::int4_offset(a.keys, c, g, d / 8)] >> int4_shift(d % 8) & 15u;
            sum += double{unit} * std::nearbyint(q[d] * y.scale * inverse) * n + double{q[d]} * y.zero;
          }
          score = static_cast<float>(sum);
        }
      }
}

template <>
void in_bytes(const op::Int8Scores::Args& a, int g) {
  const int group = a.hq / a.hkv;
  for (int h = g * group; h < (g + 1) * group; ++h)
    for (int i = 0; i < a.n_rows; ++i) {
      const float* q = a.q + h * a.q_head + i * a.q_row;
      float largest = 0;
      for (int d = 0; d < a.dk; ++d) largest = std::max(largest, std::fabs(q[d]));
      const float unit = largest / 127, inverse = 1.0f / unit;
      for (std::int64_t c = 0; c < tiles_of(a.n_cells) * kTileKeys; ++c) {
        float& score = a.score[h * a.score_head + i * a.score_row + c];
        if (!std::isfinite(score) || score == kUntouched) continue;
        double whole = 0, middle = 0;
        for (int d = 0; d < a.dk; ++d) {
          whole += std::nearbyint(q[d] * inverse) * number(a.keys, c, g, d);
          middle += double{q[d]} * rest(a.keys, c, g, d).centre;
        }
        score = static_cast<float>(middle + double{unit} * rest(a.keys, c, g, 0).scale * whole);
      }
    }
}

template <class Op>
void check_scores(const kernel::Kernel<Op>& k, const ScoreCase& s, std::int64_t n_cells) {
  Problem<Op> p(s, n_cells);
  if (k.why_not && k.why_not(p.a, 1)) return;
  const auto run = [&](int workers) {
    std::vector<float> out(p.size(), kUntouched);
    p.a.score = out.data();
    const auto pool = make_thread_pool(workers);
    Workspace space;
    run_kernel(k, p.a, *pool, space);
    return out;
  };
  const std::vector<float> got = run(1), again = run(3);
  EXPECT_EQ(std::memcmp(got.data(), again.data(), got.size() * 4), 0) << k.name << " 1 or 3 workers: " << s.line();
  std::vector<float> want(p.size(), kUntouched), plain = want;
  for (int g = 0; g < p.a.hkv; ++g) {
    p.a.score = want.data();
    reference<double>(p.a, g);
    p.a.score = plain.data();
    reference<float>(p.a, g);
    p.a.score = want.data();
    if (rounds_queries(k)) in_bytes(p.a, g);
  }
  double worst = 0, allowed = 0, size = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (want[i] == kUntouched || !std::isfinite(want[i])) {
      ASSERT_EQ(got[i], want[i]) << Op::kName << " " << k.name << " at " << i << ", cells=" << n_cells << " " << s.line();
      continue;
    }
    worst = std::max<double>(worst, std::fabs(got[i] - want[i]));
    allowed = std::max<double>(allowed, std::fabs(plain[i] - want[i]));
    size = std::max<double>(size, std::fabs(want[i]));
  }
  // Where few numbers are compared, plain arithmetic may be right by luck: two units in the last place are granted.
  EXPECT_LE(worst, 2 * allowed + 0x1p-22 * size) << Op::kName << " " << k.name << ", cells=" << n_cells << " " << s.line();
}

template <class Op>
void check_list(const kernel::KernelList<Op>& list) {
  for (const auto* k : list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    for (std::uint64_t seed = 1; seed <= 180; seed += kThin) {
      ScoreCase s;
      s.side = any_case(seed);
      s.group = 1 + static_cast<int>(seed % 5) * static_cast<int>(1 + seed / 7 % 2);
      s.rows = seed % 4 ? 1 : 1 + static_cast<int>(seed % 9);
      s.visible = static_cast<int>(seed % 3);
      s.sum_group = seed % 2;
      s.tiles = seed / 2 % 2;
      check_scores(*k, s, s.side.cells);
      check_scores(*k, s, (s.side.cells + 1) / 2);
    }
    ScoreCase large;  // more tiles than a task has, more queries than a task has
    large.side = {.dtype = Dtype::f16, .cells = 5000, .heads = 2, .dim = 64, .page = 8, .labels = 16, .seed = 7};
    large.group = 4;
    large.rows = 17;
    large.visible = 2;
    check_scores(*k, large, 5000);
    ScoreCase prompt = large;  // more queries than a task of a prompt has
    prompt.side.cells = 200;
    prompt.side.dim = 96;
    prompt.rows = 150;
    check_scores(*k, prompt, 190);
  }
}

TEST(SideScoreKernels, PagesEqualTheReference) { check_list(kernel::page_scores_list); }
TEST(SideScoreKernels, LabelsEqualTheReference) { check_list(kernel::label_scores_list); }
TEST(SideScoreKernels, Int4EqualsTheReference) { check_list(kernel::int4_scores_list); }
TEST(SideScoreKernels, Int8EqualsTheReference) { check_list(kernel::int8_scores_list); }

// A call so large that its scores are written past the caches gives what calls of a few rows give, bit for bit.
TEST(SideScoreKernels, Int8CallsOfAllRowsEqualCallsOfSome) {
  ScoreCase s;
  s.side = {.dtype = Dtype::f16, .cells = 1000, .heads = 1, .dim = 32, .seed = 5};
  s.group = 2;
  s.rows = 1100;
  for (const auto* k : kernel::int8_scores_list) {
    // Sums of whole numbers are the same whatever rows are beside them.
    if (!rounds_queries(*k) || !missing_features(detect_features(), k->needs).empty()) continue;
    Problem<op::Int8Scores> p(s, s.side.cells);
    p.a.score_row = p.columns + 16;
    p.a.score_head = s.rows * p.a.score_row;
    const std::size_t bytes = p.size() * 4;
    Buffer whole, pieces;
    const auto pool = make_thread_pool(2);
    Workspace space;
    p.a.score = static_cast<float*>(std::memset(whole.grow(bytes), 0, bytes));
    run_kernel(*k, p.a, *pool, space);
    auto* to = static_cast<float*>(std::memset(pieces.grow(bytes), 0, bytes));
    for (std::int32_t row = 0; row < s.rows; row += 100) {
      op::Int8Scores::Args part = p.a;
      part.n_rows = 100;
      part.q += row * part.q_row;
      part.score = to + row * part.score_row;
      run_kernel(*k, part, *pool, space);
    }
    EXPECT_EQ(std::memcmp(whole.data(), pieces.data(), bytes), 0) << k->name;
  }
}

// The reference's scores against sums over the raw keys.
TEST(SideReference, ScoresAreWhatTheFormulasSay) {
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    ScoreCase s;
    s.side = any_case(seed);
    s.rows = 2;
    s.visible = static_cast<int>(seed % 3);
    Problem<op::LabelScores> p(s, s.side.cells);
    std::vector<float> score(p.size());
    p.a.score = score.data();
    for (int g = 0; g < p.a.hkv; ++g) op::label_scores_ref<double>(p.a, g);
    for (int h = 0; h < p.a.hq; ++h)
      for (int i = 0; i < s.rows; ++i)
        for (std::int64_t c = 0; c < s.side.cells; ++c) {
          const float x = score[static_cast<std::size_t>(h * p.a.score_head + i * p.a.score_row + c)];
          const bool hidden = p.a.visible && !(p.a.visible[h * p.a.visible_head + i * p.a.visible_row + c / 32] >> (c % 32) & 1u);
          double sum = 0;
          for (int r = 0; r < s.side.labels; ++r) {
            const int d = r * s.side.dim / s.side.labels;
            sum += static_cast<double>(p.a.q[h * p.a.q_head + i * p.a.q_row + d]) * p.raw.get(h / s.group, c, d);
          }
          if (hidden) { ASSERT_EQ(x, -kInfinity); }
          else ASSERT_NEAR(x, sum, 1e-5) << s.line();
        }
  }
}

// How far int8 scores are from the products they stand for: within the bound of op/side_scores.h, and a channel
// that is large in all keys, as models have them, makes it no worse.
TEST(SideProperty, Int8ScoresAreWithinTheirBound) {
  for (const auto* k : kernel::int8_scores_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    double error[2] = {};  // mean square, without and with such channels
    for (const bool outliers : {false, true})
      for (const int rows : {1, 40}) {
        ScoreCase s;
        s.side = {.dtype = Dtype::f16, .cells = 300, .heads = 2, .dim = 64, .seed = 11};
        s.rows = rows;
        Problem<op::Int8Scores> p(s, s.side.cells);
        if (k->why_not && k->why_not(p.a, 1)) continue;
        if (outliers) {
          for (int h = 0; h < 2; ++h)
            for (std::int64_t c = 0; c < s.side.cells; ++c)
              for (const int d : {3, 40}) p.raw.set(h, c, d, p.raw.get(h, c, d) + (d == 3 ? 40.0f : -25.0f));
          op::side_write_ref(write_args(p.raw, p.store.view()));
        }
        std::vector<float> score(p.size());
        p.a.score = score.data();
        const auto pool = make_thread_pool(1);
        Workspace space;
        run_kernel(*k, p.a, *pool, space);
        double sum = 0;
        // The last tile holds zeros beside keys: there the outliers take their range from the others after all.
        const std::int64_t whole = s.side.cells / kTileKeys * kTileKeys;
        for (int h = 0; h < p.a.hq; ++h)
          for (int i = 0; i < rows; ++i)
            for (std::int64_t c = 0; c < s.side.cells; ++c) {
              const float* q = p.a.q + h * p.a.q_head + i * p.a.q_row;
              double exact = 0, ones = 0, largest = 0;
              for (int d = 0; d < s.side.dim; ++d) {
                exact += double{q[d]} * p.raw.get(h / s.group, c, d);
                ones += std::fabs(q[d]);
                largest = std::max<double>(largest, std::fabs(q[d]));
              }
              const double off = std::fabs(score[static_cast<std::size_t>(h * p.a.score_head + i * p.a.score_row + c)] - exact);
              const double bound = rest(p.a.keys, c, h / s.group, 0).scale / 2.0 * (ones + (rounds_queries(*k) ? s.side.dim * largest : 0.0));
              ASSERT_LE(off, bound + 1e-4) << k->name << " cell " << c << (outliers ? " with outliers" : "");
              if (c < whole) sum += off * off;
            }
        error[outliers] += sum / static_cast<double>(p.a.hq * rows * whole);
      }
    EXPECT_GT(error[0], 0) << k->name;
    EXPECT_LT(error[1], 1.3 * error[0]) << k->name;
    EXPECT_LT(error[0], 2 * 0.1 * 0.1) << k->name << ": scores have a standard deviation of 8";
  }
}

// What Quest rests on: no visible key of a page scores above the page's bound, whatever rounding did to it.
TEST(SideProperty, PageBoundIsAtLeastEveryProduct) {
  for (const auto* k : kernel::page_scores_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    for (std::uint64_t seed = 1; seed <= 60; seed += kThin) {
      ScoreCase s;
      s.side = any_case(seed);
      s.visible = static_cast<int>(seed % 3);
      s.sum_group = seed % 2;
      Problem<op::PageScores> p(s, s.side.cells);
      std::vector<float> score(p.size());
      p.a.score = score.data();
      const auto pool = make_thread_pool(1);
      Workspace space;
      run_kernel(*k, p.a, *pool, space);
      const int heads = s.sum_group ? p.a.hkv : p.a.hq, summed = s.sum_group ? s.group : 1;
      for (int out = 0; out < heads; ++out)
        for (std::int64_t c = 0; c < s.side.cells; ++c) {
          const int first = out * summed;
          if (p.a.visible && !(p.a.visible[first * p.a.visible_head + c / 32] >> (c % 32) & 1u)) continue;
          double sum = 0;  // single precision may lose this much of a sum of such terms
          for (int h = first; h < first + summed; ++h)
            for (int d = 0; d < s.side.dim; ++d) sum += static_cast<double>(p.a.q[h * p.a.q_head + d]) * p.raw.get(h / s.group, c, d);
          ASSERT_GE(score[static_cast<std::size_t>(out * p.a.score_head + c / s.side.page)] + 2e-5f * static_cast<float>(summed), sum)
              << k->name << " cell " << c << ": " << s.line();
        }
    }
  }
}

// Keys that are no numbers make scores of +infinity, never NaN, and never move other cells.
TEST(SideProperty, WhatCannotBeJudgedIsKept) {
  const auto scores = [](const auto& list, auto&& prepare, float bad, int cell) {
    std::vector<std::vector<float>> out;
    for (const auto* k : list) {
      if (!missing_features(detect_features(), k->needs).empty()) continue;
      RawCache raw(Dtype::f32, 64, 1, 16);
      Rng rng(3);
      raw.fill(rng);
      raw.set(0, cell, 0, bad);
      SideStore store;
      store.open({.page = 8, .int4 = true, .int8 = true, .labels = 4}, Dtype::f32, 64, 1, 16);
      op::side_write_ref(write_args(raw, store.view()));
      typename std::remove_reference_t<decltype(*k)>::Args a;
      a.hq = a.hkv = a.n_rows = 1;
      a.dk = 16;
      a.n_cells = 64;
      const std::vector<float> q(16, 1.0f);
      a.q = q.data();
      std::vector<float> score(64);
      a.score = score.data();
      prepare(a, store.view());
      const auto pool = make_thread_pool(1);
      Workspace space;
      run_kernel(*k, a, *pool, space);
      out.push_back(score);
    }
    return out;
  };
  const auto pages = [](op::PageScores::Args& a, const SideView& v) { a.pages = v.pages; };
  const auto labels = [](op::LabelScores::Args& a, const SideView& v) { a.labels = v.labels; };
  const auto int4 = [](op::Int4Scores::Args& a, const SideView& v) { a.keys = v.int4; };
  const auto int8 = [](op::Int8Scores::Args& a, const SideView& v) { a.keys = v.int8; };
  for (const float bad : {kInfinity, -kInfinity, NAN}) {
    for (const auto& s : scores(kernel::page_scores_list, pages, bad, 9)) {
      EXPECT_TRUE(bad != bad ? std::isfinite(s[1]) : s[1] == kInfinity) << "a NaN is passed over, an infinity is not";
      EXPECT_TRUE(std::isfinite(s[0]) && std::isfinite(s[2]));
    }
    for (const auto& s : scores(kernel::int4_scores_list, int4, bad, 9)) EXPECT_TRUE(s[9] == kInfinity && std::isfinite(s[32])) << "its tile cannot be judged, the next can";
    for (const auto& s : scores(kernel::int8_scores_list, int8, bad, 9))
      for (std::size_t c = 0; c < s.size(); ++c) EXPECT_TRUE(c == 9 ? s[c] == kInfinity : std::isfinite(s[c])) << "the cell cannot be judged, its neighbours can";
    if (std::isfinite(bad) || bad == kInfinity || bad == -kInfinity) continue;
    for (const auto& s : scores(kernel::label_scores_list, labels, bad, 9)) EXPECT_TRUE(s[9] == kInfinity && std::isfinite(s[8]));
  }
}

// A query that is no number cannot judge anything, and does not disturb the others.
TEST(SideProperty, Int8QueryThatIsNoNumberKeepsAll) {
  ScoreCase s;
  s.side = {.dtype = Dtype::f16, .cells = 70, .heads = 1, .dim = 64, .seed = 2};
  s.rows = 20;
  for (const auto* k : kernel::int8_scores_list) {
    if (!missing_features(detect_features(), k->needs).empty()) continue;
    Problem<op::Int8Scores> p(s, s.side.cells);
    p.q[static_cast<std::size_t>(p.a.q_head + 7 * p.a.q_row + 5)] = NAN;  // head 1, row 7
    std::vector<float> score(p.size());
    p.a.score = score.data();
    const auto pool = make_thread_pool(1);
    Workspace space;
    run_kernel(*k, p.a, *pool, space);
    for (int h = 0; h < p.a.hq; ++h)
      for (int i = 0; i < s.rows; ++i)
        for (std::int64_t c = 0; c < s.side.cells; ++c) {
          const float x = score[static_cast<std::size_t>(h * p.a.score_head + i * p.a.score_row + c)];
          EXPECT_TRUE(h == 1 && i == 7 ? x == kInfinity : std::isfinite(x)) << k->name << " head " << h << " row " << i;
        }
  }
}

}  // namespace
}  // namespace lacuna::test
