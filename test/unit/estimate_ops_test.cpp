// SPDX-License-Identifier: Apache-2.0
// Kernels of the ops that estimators are made of, against their references.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/buffer.h"
#include "base/half.h"
#include "base/rng.h"
#include "engine/pick.h"
#include "op/alike_ref.h"
#include "op/attend_maxima_ref.h"
#include "op/line_sums_ref.h"
#include "op/pack_ref.h"
#include "op/range_sums_ref.h"
#include "op/segment_mass_ref.h"
#include "support/each_kernel.h"

namespace lacuna::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kUntouched = 12345.0f;

template <class Op>
void run_on(const kernel::Kernel<Op>& k, const typename Op::Args& a, int workers) {
  const auto pool = make_thread_pool(workers);
  Workspace space;
  run_kernel(k, a, *pool, space);
}

// ---- line_sums

struct LineCase {
  int hq = 2, hkv = 1, dk = 64, rows = 64;
  std::int64_t first_key = 100, behind = 0, first_cell = 0;  // keys before the first row's own, after the last row's
  float spread = 1.0f;
  float bad = 0;  // one key holds this if it is no number
  float rise = 0;  // the last key's last channel, that of keys before it in proportion: so rise the scores, or fall
  std::string line() const {
    return fmt::format("hq={} hkv={} dk={} rows={} first_key={} behind={} first_cell={} spread={} bad={} rise={}", hq, hkv, dk, rows, first_key,
                       behind, first_cell, spread, bad, rise);
  }
};

bool check_lines(const kernel::Kernel<op::LineSums>& k, const LineCase& c) {
  Rng rng(7);
  const std::int64_t n_keys = c.first_key + c.rows + c.behind, cells = c.first_cell + n_keys + 40;
  const PackFormat format = k.pack == PackFormat::none ? PackFormat::lane16_f32 : k.pack;
  std::vector<float> q(static_cast<std::size_t>(c.hq * c.rows) * (c.dk + 3), NAN), raw(static_cast<std::size_t>(cells) * (c.hkv + 1) * c.dk);
  for (int i = 0; i < c.hq * c.rows; ++i)
    for (int d = 0; d < c.dk; ++d) q[static_cast<std::size_t>(i * (c.dk + 3) + d)] = c.spread * static_cast<float>(rng.normal());
  for (float& x : raw) x = static_cast<float>(rng.normal());
  for (std::int64_t cell = 0; c.rise > 0 && cell < cells; ++cell)
    for (int h = 0; h < c.hkv; ++h)
      raw[static_cast<std::size_t>((cell * (c.hkv + 1) + h + 1) * c.dk - 1)] = c.rise * static_cast<float>(cell) / static_cast<float>(cells);
  // What lies around the keys must not matter.
  for (std::int64_t cell = 0; cell < cells; ++cell)
    if (cell < c.first_cell || cell >= c.first_cell + c.first_key + c.rows) raw[static_cast<std::size_t>(cell * (c.hkv + 1) * c.dk)] = NAN;
  if (!std::isfinite(c.bad)) raw[static_cast<std::size_t>((c.first_cell + c.first_key / 2) * (c.hkv + 1) * c.dk)] = c.bad;
  // One head more than the call asks for: heads of a call may be some of the cache's.
  PackedView view{nullptr, format, c.hkv + 1, c.dk, cells};
  Buffer storage;
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(cells) * view.heads);
  view.data = storage.grow(bytes);
  std::memset(storage.data(), 0, bytes);
  op::Pack::Args pack;
  pack.dtype = Dtype::f32;
  pack.raw = raw.data();
  pack.head = c.dk;
  pack.cell = std::int64_t{c.hkv + 1} * c.dk;
  pack.n = cells;
  pack.format = format;
  pack.heads = view.heads;
  pack.dim = c.dk;
  pack.packed = storage.data();
  op::pack_ref(pack);

  op::LineSums::Args a{.hq = c.hq, .hkv = c.hkv, .dk = c.dk, .n_rows = c.rows, .n_keys = n_keys, .first_cell = c.first_cell,
                       .first_key = c.first_key, .q = q.data(), .q_head = std::int64_t{c.rows} * (c.dk + 3), .q_row = c.dk + 3,
                       .packed_k = view, .scale = 0.125f};
  if (k.why_not && k.why_not(a, 1)) return false;
  const auto size = static_cast<std::size_t>(c.hq * n_keys);
  std::vector<float> got[2], again[2], want[2];
  const auto run = [&](std::vector<float>* to, int workers) {
    for (int i = 0; i < 2; ++i) to[i].assign(size + 1, kUntouched);
    a.vertical = to[0].data();
    a.slash = to[1].data();
    run_on(k, a, workers);
  };
  run(got, 1);
  run(again, 3);
  // The reference in the kernel's precision: q rounded like the packed keys.
  std::vector<float> rounded = q;
  if (format == PackFormat::pair16_bf16)
    for (float& x : rounded) x = bf16_to_float(float_to_bf16(x));
  a.q = rounded.data();
  for (auto& w : want) w.assign(size, 0.0f);
  a.vertical = want[0].data();
  a.slash = want[1].data();
  for (int h = 0; h < c.hq; ++h) op::line_sums_head_ref(a, h);
  const double rounding = std::string_view(k.name).starts_with("cpu.amx") ? 0x1p-8 : 0;  // of weights to bf16
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(std::memcmp(got[i].data(), again[i].data(), size * 4), 0) << k.name << " 1 or 3 workers: " << c.line();
    EXPECT_EQ(got[i][size], kUntouched) << k.name << " wrote past the end: " << c.line();
    double worst = 0;
    for (std::size_t j = 0; j < size; ++j)
      worst = std::max<double>(worst, got[i][j] == got[i][j] ? std::fabs(got[i][j] - want[i][j]) - rounding * want[i][j] : 1e9);
    EXPECT_LE(worst, 2e-4) << k.name << (i ? " slash: " : " vertical: ") << c.line();
  }
  return true;
}

TEST(LineSums, EqualTheReference) {
  each_kernel(kernel::line_sums_list, [](const kernel::Kernel<op::LineSums>& k) {
    int taken = 0;
    for (int dk = 16; dk <= 256; dk += 24) taken += check_lines(k, {.dk = dk, .rows = 33, .first_key = 70});
    for (int rows : {1, 2, 7, 8, 31, 32, 33, 40, 63, 64, 65, 96, 97, 130})
      taken += check_lines(k, {.hq = 4, .hkv = 2, .dk = 32, .rows = rows, .first_key = 300 + rows, .first_cell = rows % 3 * 16});
    for (std::int64_t first = 0; first < 70; first += 3)
      taken += check_lines(k, {.dk = 32, .rows = 20, .first_key = first, .behind = first % 4 * 5, .first_cell = first % 2 * 16});
    taken += check_lines(k, {.first_key = 1500, .spread = 12.0f});
    for (const float rise : {30.0f, 300.0f}) taken += check_lines(k, {.first_key = 900, .rise = rise});
    // Of many heads some kernels take more rows at once.
    for (int rows : {20, 64, 97, 150}) taken += check_lines(k, {.hq = 16, .hkv = 8, .dk = 32, .rows = rows, .first_key = 300 + rows});
    EXPECT_GT(taken, 0) << k.name;
  });
}

TEST(LineSums, WhatIsNoNumberCarriesNoMass) {
  each_kernel(kernel::line_sums_list, [](const kernel::Kernel<op::LineSums>& k) {
    EXPECT_TRUE(check_lines(k, {.bad = NAN})) << k.name;
    // Of either sign, by the query: rows of which one score is infinite are flat, or do without the key.
    EXPECT_TRUE(check_lines(k, {.bad = kInfinity})) << k.name;
  });
}

// ---- attend_maxima

struct MaximaCase {
  int hq = 4, hkv = 2, dk = 32, rows = 70;
  std::int64_t first_key = 100, behind = 0, first_cell = 0;
  std::int32_t block_q = 1, block_k = 64;
  bool by_group = false, block_max = true, block_sum = true, key_max = true;
  float lse_of_row = 0, key = 0;  // one row's log-sum, one key's channel, if no number
  std::string line() const {
    return fmt::format("hq={} hkv={} dk={} rows={} first_key={} behind={} first_cell={} blocks={}x{} by_group={} outputs={}{}{} lse={} key={}", hq, hkv,
                       dk, rows, first_key, behind, first_cell, block_q, block_k, by_group, block_max, block_sum, key_max, lse_of_row, key);
  }
};

// A kernel beside sums and maxima over all pairs, in double precision, of operands rounded as the kernel's are.
bool check_maxima(const kernel::Kernel<op::AttendMaxima>& k, const MaximaCase& c) {
  Rng rng(11);
  const std::int64_t n_keys = std::max<std::int64_t>(c.first_key + c.rows, 0) + c.behind, cells = c.first_cell + n_keys + 40;
  const PackFormat format = k.pack == PackFormat::none ? PackFormat::lane16_f32 : k.pack;
  const auto round = [format](float x) {
    return format == PackFormat::pair16_bf16 ? bf16_to_float(float_to_bf16(x)) : format == PackFormat::lane16_f16 ? half_to_float(float_to_half(x)) : x;
  };
  std::vector<float> q(static_cast<std::size_t>(c.hq * c.rows * c.dk)), raw(static_cast<std::size_t>(cells * c.hkv * c.dk));
  for (float& x : q) x = bf16_to_float(float_to_bf16(2.0f * static_cast<float>(rng.normal())));
  for (float& x : raw) x = round(static_cast<float>(rng.normal()));
  const auto key = [&](std::int64_t j, int h) { return raw.data() + ((c.first_cell + j) * c.hkv + h) * c.dk; };
  for (std::int64_t cell = 0; cell < cells; ++cell)  // what lies around the keys must not matter
    if (cell < c.first_cell || cell >= c.first_cell + n_keys - c.behind) raw[static_cast<std::size_t>(cell * c.hkv * c.dk)] = NAN;
  if (!std::isfinite(c.key)) key(3, 0)[1] = c.key;
  PackedView view{nullptr, format, c.hkv, c.dk, cells};
  Buffer storage;
  const std::size_t bytes = view.block_bytes() * static_cast<std::size_t>(tiles_of(cells) * view.heads);
  view.data = storage.grow(bytes);
  std::memset(storage.data(), 0, bytes);
  op::Pack::Args pack;
  pack.dtype = Dtype::f32;
  pack.raw = raw.data();
  pack.head = c.dk;
  pack.cell = std::int64_t{c.hkv} * c.dk;
  pack.n = cells;
  pack.format = format;
  pack.heads = c.hkv;
  pack.dim = c.dk;
  pack.packed = storage.data();
  op::pack_ref(pack);

  op::AttendMaxima::Args a;
  a.hq = c.hq;
  a.hkv = c.hkv;
  a.dk = c.dk;
  a.n_rows = c.rows;
  a.n_keys = n_keys;
  a.first_cell = c.first_cell;
  a.first_key = c.first_key;
  a.q = q.data();
  a.q_head = std::int64_t{c.rows} * c.dk;
  a.q_row = c.dk;
  a.packed_k = view;
  a.scale = 0.25f;
  a.block_q = c.block_q;
  a.block_k = c.block_k;
  a.by_group = c.by_group;
  if (k.why_not && k.why_not(a, 1)) return false;

  const std::int64_t blocks = a.row_blocks() * a.key_blocks(), key_rows = c.by_group ? c.hkv : c.hq;
  std::vector<float> lse(static_cast<std::size_t>(c.hq * c.rows));
  std::vector<double> block_max(static_cast<std::size_t>(c.hq * blocks)), block_sum(block_max.size()), key_max(static_cast<std::size_t>(key_rows * n_keys));
  for (int h = 0; h < c.hq; ++h)
    for (int i = 0; i < c.rows; ++i) {
      std::vector<double> score;
      double sum = 0;
      for (std::int64_t j = 0; j <= c.first_key + i; ++j) {
        double x = 0;
        for (int d = 0; d < c.dk; ++d) x += double{q[static_cast<std::size_t>((h * c.rows + i) * c.dk + d)]} * key(j, h * c.hkv / c.hq)[d];
        score.push_back(x * a.scale);
        if (std::isfinite(x)) sum += std::exp(x * a.scale);
      }
      float& l = lse[static_cast<std::size_t>(h * c.rows + i)] = static_cast<float>(std::log(sum));  // -infinity for a row that sees nothing
      if (!std::isfinite(c.lse_of_row) && i == c.rows / 2) l = c.lse_of_row;
      if (!std::isfinite(l)) continue;
      for (std::int64_t j = 0; j < static_cast<std::int64_t>(score.size()); ++j) {
        const double p = score[static_cast<std::size_t>(j)] != score[static_cast<std::size_t>(j)] ? 0 : std::min(1.0, std::exp(score[static_cast<std::size_t>(j)] - l));
        const auto at = static_cast<std::size_t>(h * blocks + i / c.block_q * a.key_blocks() + j / c.block_k);
        const auto of_key = static_cast<std::size_t>((c.by_group ? h * c.hkv / c.hq : h) * n_keys + j);
        block_max[at] = std::max(block_max[at], p);
        block_sum[at] += p;
        key_max[of_key] = std::max(key_max[of_key], p);
      }
    }
  a.lse = lse.data();

  std::vector<float> got[3], again[3];
  const std::vector<double>* want[] = {&block_max, &block_sum, &key_max};
  const bool asked[] = {c.block_max, c.block_sum, c.key_max};
  const auto run = [&](std::vector<float>* to, int workers) {
    for (int i = 0; i < 3; ++i) to[i].assign(want[i]->size() + 1, NAN), to[i].back() = kUntouched;
    a.block_max = asked[0] ? to[0].data() : nullptr;
    a.block_sum = asked[1] ? to[1].data() : nullptr;
    a.key_max = asked[2] ? to[2].data() : nullptr;
    run_on(k, a, workers);
  };
  run(got, 1);
  run(again, 3);
  const char* names[] = {" block_max: ", " block_sum: ", " key_max: "};
  for (int i = 0; i < 3; ++i) {
    if (!asked[i]) continue;
    EXPECT_EQ(std::memcmp(got[i].data(), again[i].data(), got[i].size() * 4), 0) << k.name << names[i] << "1 or 3 workers: " << c.line();
    EXPECT_EQ(got[i].back(), kUntouched) << k.name << names[i] << "wrote past the end: " << c.line();
    double worst = 0;
    for (std::size_t j = 0; j < want[i]->size(); ++j) {
      const double off = std::fabs(got[i][j] - (*want[i])[j]) / std::max(1.0, (*want[i])[j]);
      worst = std::max(worst, off == off ? off : 1e9);
    }
    EXPECT_LE(worst, 5e-5) << k.name << names[i] << c.line();
  }
  return true;
}

TEST(AttendMaxima, EqualsSumsAndMaximaOverAllPairs) {
  each_kernel(kernel::attend_maxima_list, [](const kernel::Kernel<op::AttendMaxima>& k) {
    int taken = 0;
    for (const std::int32_t block_q : {1, 5, 16, 32, 48, 64, 100})
      for (const std::int32_t block_k : {16, 48, 64, 128, 512}) taken += check_maxima(k, {.block_q = block_q, .block_k = block_k});
    for (const int rows : {1, 2, 31, 32, 33, 65, 130, 300})
      taken += check_maxima(k, {.dk = 64, .rows = rows, .first_key = 200, .behind = rows % 3 * 21, .first_cell = rows % 2 * 16, .block_q = 16, .by_group = rows % 2 == 0});
    for (int which = 1; which < 8; ++which)
      taken += check_maxima(k, {.rows = 40, .block_q = 8, .block_max = (which & 1) != 0, .block_sum = (which & 2) != 0, .key_max = (which & 4) != 0});
    for (const std::int64_t first : {0, 1, 15, 31, 255, 256, 700}) taken += check_maxima(k, {.rows = 37, .first_key = first, .block_q = 64});
    EXPECT_GT(taken, 0) << k.name;
  });
}

TEST(AttendMaxima, RowsThatSeeNothingHaveNoMass) {
  each_kernel(kernel::attend_maxima_list, [](const kernel::Kernel<op::AttendMaxima>& k) {
    for (const std::int64_t first : {-1, -5, -33, -69}) EXPECT_TRUE(check_maxima(k, {.first_key = first, .block_q = 16})) << k.name;
    EXPECT_TRUE(check_maxima(k, {.first_key = -70, .behind = 20})) << k.name << ": no row sees a key";
    EXPECT_TRUE(check_maxima(k, {.rows = 0, .first_key = 50})) << k.name << ": no rows";
  });
}

TEST(AttendMaxima, WhatIsNoNumberIsNoMaximum) {
  each_kernel(kernel::attend_maxima_list, [](const kernel::Kernel<op::AttendMaxima>& k) {
    for (const float bad : {NAN, kInfinity, -kInfinity}) {
      EXPECT_TRUE(check_maxima(k, {.block_q = 16, .lse_of_row = bad})) << k.name;
      EXPECT_TRUE(check_maxima(k, {.block_q = 16, .key = bad})) << k.name;  // of either sign, by the query
    }
  });
}

// What segment_mass says of scores that somebody else made, said of queries and keys.
TEST(AttendMaxima, SumsOfARowAreOne) {
  each_kernel(kernel::attend_maxima_list, [](const kernel::Kernel<op::AttendMaxima>& k) {
    // Keys of zeros: every probability of row i is 1 / (own + 1).
    constexpr int kRows = 40;
    PackedView view{nullptr, k.pack == PackFormat::none ? PackFormat::lane16_f32 : k.pack, 1, 32, 64};
    Buffer storage;
    const std::size_t bytes = view.block_bytes() * 2;
    view.data = std::memset(storage.grow(bytes), 0, bytes);
    const std::vector<float> q(kRows * 32, 1.0f);
    std::vector<float> lse, most(kRows * 4), sums(kRows * 4);
    for (int i = 0; i < kRows; ++i) lse.push_back(std::log(static_cast<float>(i + 1)));
    op::AttendMaxima::Args a;
    a.hq = a.hkv = 1;
    a.dk = 32;
    a.n_rows = kRows;
    a.n_keys = 64;
    a.q = q.data();
    a.q_row = 32;
    a.packed_k = view;
    a.lse = lse.data();
    a.block_k = 16;
    a.block_max = most.data();
    a.block_sum = sums.data();
    run_on(k, a, 1);
    for (int i = 0; i < kRows; ++i) {
      float sum = 0;
      for (int b = 0; b < 4; ++b) {
        sum += sums[static_cast<std::size_t>(i * 4 + b)];
        EXPECT_NEAR(most[static_cast<std::size_t>(i * 4 + b)], 16 * b <= i ? 1.0f / static_cast<float>(i + 1) : 0.0f, 1e-5f) << k.name;
      }
      EXPECT_NEAR(sum, 1.0f, 1e-5f) << k.name;
    }
  });
}

// ---- segment_mass

TEST(SegmentMass, EqualsTheReference) {
  each_kernel(kernel::segment_mass_list, [](const kernel::Kernel<op::SegmentMass>& k) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      Rng rng(seed);
      const auto columns = static_cast<std::int32_t>(1 + rng.below(300)), groups = static_cast<std::int32_t>(1 + rng.below(4));
      const auto row = (columns + 15) / 16 * 16;
      std::vector<std::int32_t> ptr{0}, end;
      for (int g = 0; g < groups; ++g) {
        for (auto n = rng.below(12); n > 0; --n) end.push_back(static_cast<std::int32_t>(1 + rng.below(static_cast<std::uint64_t>(columns))));
        ptr.push_back(static_cast<std::int32_t>(end.size()));
      }
      const auto rows = static_cast<std::int64_t>(end.size());
      std::vector<float> score(static_cast<std::size_t>(2 * rows * row), NAN);
      const float spread[] = {1.0f, 30.0f, 0.0f, 300.0f};
      for (std::int64_t r = 0; r < 2 * rows; ++r)
        for (std::int32_t c = 0; c < end[static_cast<std::size_t>(r % rows)]; ++c)
          score[static_cast<std::size_t>(r * row + c)] = spread[seed % 4] * static_cast<float>(rng.normal());
      if (seed % 5 == 0 && rows > 0) score[0] = seed % 2 ? NAN : kInfinity;
      op::SegmentMass::Args a{.heads = 2, .groups = groups, .columns = columns, .group_ptr = ptr.data(), .end = end.data(),
                              .score_head = rows * row, .score_row = row, .scale = 0.3f,
                              .segment = static_cast<std::int32_t>(1 + rng.below(9))};
      a.mass_head = std::int64_t{groups} * a.segments() + 3;
      const auto run = [&](auto&& with) {
        std::vector<float> used = score, mass(static_cast<std::size_t>(2 * a.mass_head), kUntouched);
        a.score = used.data();
        a.mass = mass.data();
        with();
        return mass;
      };
      const auto want = run([&] {
        for (int i = 0; i < 2 * groups; ++i) op::segment_mass_group_ref(a, i / groups, i % groups);
      });
      const auto got = run([&] { run_on(k, a, 1); }), again = run([&] { run_on(k, a, 3); });
      EXPECT_EQ(got, again) << k.name << " 1 or 3 workers, seed " << seed;
      for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << k.name << " seed " << seed << " at " << i;
    }
  });
}

// ---- alike

TEST(Alike, EqualsTheReference) {
  each_kernel(kernel::alike_list, [](const kernel::Kernel<op::Alike>& k) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      Rng rng(seed);
      const auto n = static_cast<std::int64_t>(1 + rng.below(200));
      const int heads = 2, dim = seed % 5 == 0 ? 64 : seed % 5 == 1 ? 128 : static_cast<int>(1 + rng.below(100)), row = heads * dim + 5;
      constexpr std::int32_t kBlocks[] = {1, 16, 32, 64};
      std::vector<float> x(static_cast<std::size_t>(2 * n * row), NAN);
      std::vector<std::int32_t> place;
      for (std::int64_t i = 0; i < n; ++i) place.push_back(static_cast<std::int32_t>(2 * n - 1 - 2 * i));
      const bool scattered = seed % 2;
      for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < heads * dim; ++c)
          x[static_cast<std::size_t>((scattered ? place[static_cast<std::size_t>(i)] : i) * row + c)] =
              seed % 7 == 0 && i / 8 % 2 == 0 ? 0.0f : 0.5f + static_cast<float>(rng.normal());
      std::vector<float> less(static_cast<std::size_t>(heads * dim));
      for (float& y : less) y = 0.5f + 0.1f * static_cast<float>(rng.normal());
      std::vector<std::uint16_t> halves;
      const Dtype type = seed % 3 == 0 ? Dtype::f32 : seed % 3 == 1 ? Dtype::f16 : Dtype::bf16;
      for (const float y : x) halves.push_back(type == Dtype::f16 ? float_to_half(y) : float_to_bf16(y));
      op::Alike::Args a{.heads = heads, .dim = dim, .block = kBlocks[seed % 4], .n = n, .dtype = type,
                        .x = type == Dtype::f32 ? static_cast<const void*>(x.data()) : halves.data(), .head = dim, .row = row,
                        .place = scattered ? place.data() : nullptr, .less = seed / 2 % 2 == 0 ? less.data() : nullptr};
      const auto size = static_cast<std::size_t>(heads * a.blocks());
      std::vector<float> want(size), got(size + 1, kUntouched), again(size + 1, kUntouched);
      std::vector<float> want_sum(size * static_cast<std::size_t>(dim)), sum(want_sum.size() + 1, kUntouched);
      a.sim = want.data();
      a.sum = want_sum.data();
      for (int h = 0; h < heads; ++h) op::alike_head_ref(a, h);
      a.sim = got.data();
      a.sum = sum.data();
      run_on(k, a, 1);
      a.sim = again.data();
      a.sum = nullptr;
      run_on(k, a, 3);
      EXPECT_EQ(got, again) << k.name << " 1 or 3 workers, seed " << seed;
      EXPECT_EQ(got[size], kUntouched) << k.name;
      EXPECT_EQ(sum.back(), kUntouched) << k.name;
      for (std::size_t i = 0; i < size; ++i) ASSERT_NEAR(got[i], want[i], 2e-5) << k.name << " seed " << seed << " at " << i;
      for (std::size_t i = 0; i < want_sum.size(); ++i) ASSERT_NEAR(sum[i], want_sum[i], 1e-4) << k.name << " seed " << seed << " at " << i;
    }
  });
}

TEST(Alike, NoNumberMeetsNoBound) {
  each_kernel(kernel::alike_list, [](const kernel::Kernel<op::Alike>& k) {
    for (const float bad : {NAN, kInfinity})
      for (const bool in_less : {false, true}) {
        std::vector<float> x(96 * 8, 1.0f), less(8);
        (in_less ? less[3] : x[40 * 8 + 3]) = bad;
        float sim[3];
        run_on(k, {.heads = 1, .dim = 8, .block = 32, .n = 96, .x = x.data(), .head = 0, .row = 8, .less = less.data(), .sim = sim}, 2);
        EXPECT_TRUE(std::isnan(sim[1])) << k.name;
        if (in_less) EXPECT_TRUE(std::isnan(sim[0])) << k.name;
        else EXPECT_NEAR(sim[0], 1.0f, 1e-6f) << k.name;
      }
  });
}

// ---- range_sums

TEST(RangeSums, EqualTheReference) {
  each_kernel(kernel::range_sums_list, [](const kernel::Kernel<op::RangeSums>& k) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
      Rng rng(seed);
      const auto n = static_cast<std::int64_t>(1 + rng.below(200));
      const int heads = 3, dim = seed % 5 == 0 ? 64 : static_cast<int>(1 + rng.below(100)), row = heads * dim + 5;
      std::vector<float> x(static_cast<std::size_t>(2 * n * row), NAN);  // what lies between the vectors must not matter
      std::vector<std::int32_t> place;
      for (std::int64_t i = 0; i < n; ++i) place.push_back(static_cast<std::int32_t>(2 * n - 1 - 2 * i));
      const bool scattered = seed % 2;
      for (std::int64_t i = 0; i < n; ++i)
        for (int c = 0; c < heads * dim; ++c)
          x[static_cast<std::size_t>((scattered ? place[static_cast<std::size_t>(i)] : i) * row + c)] = static_cast<float>(rng.normal());
      std::vector<std::uint16_t> halves;
      const Dtype type = seed % 3 == 0 ? Dtype::f32 : seed % 3 == 1 ? Dtype::f16 : Dtype::bf16;
      for (const float y : x) halves.push_back(type == Dtype::f16 ? float_to_half(y) : float_to_bf16(y));
      std::vector<std::int64_t> begin, end;
      for (int r = 0; r < 7; ++r) {  // of any length, none among them
        begin.push_back(static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(n))));
        end.push_back(begin.back() + static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(n - begin.back() + 1))));
      }
      op::RangeSums::Args a{.heads = heads, .dim = dim, .ranges = 7, .begin = begin.data(), .end = end.data(), .dtype = type,
                            .x = type == Dtype::f32 ? static_cast<const void*>(x.data()) : halves.data(), .head = dim, .row = row,
                            .place = scattered ? place.data() : nullptr};
      const auto size = static_cast<std::size_t>(heads * 7 * dim);
      std::vector<float> want(size), got(size + 1, kUntouched), again(size + 1, kUntouched);
      a.sum = want.data();
      for (int r = 0; r < 7; ++r) op::range_sums_ref(a, r);
      a.sum = got.data();
      run_on(k, a, 1);
      a.sum = again.data();
      run_on(k, a, 3);
      EXPECT_EQ(got, again) << k.name << " 1 or 3 workers, seed " << seed;
      EXPECT_EQ(got[size], kUntouched) << k.name;
      for (std::size_t i = 0; i < size; ++i) ASSERT_NEAR(got[i], want[i], 1e-4) << k.name << " seed " << seed << " at " << i;
    }
  });
}

}  // namespace
}  // namespace lacuna::test
