// SPDX-License-Identifier: Apache-2.0
// Plans as lists of blocks and pages, read back pair by pair and held against the plan's own words.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/rng.h"
#include "engine/plan_words.h"
#include "engine/registry.h"
#include "lacuna/block_lists.h"
#include "test/support/draw_plan.h"

namespace lacuna {
namespace {

using Words = std::vector<std::int32_t>;
using test::Draw;
using test::draw_plan;
using test::KeptByPlan;
using test::PlanShape;

Words whole_call(const Plan& plan) {
  Words w = to_words({&plan, 1});
  w[2] = kWholeCall;
  return w;
}

// Whether the lists keep key j for row i of a sequence and a list, the diagonal aside.
bool listed(const BlockLists& x, std::int32_t rows, std::int32_t batch, std::int32_t list, std::int32_t i, std::int64_t j) {
  const std::int32_t blocks = (rows + x.block_q - 1) / x.block_q;
  const std::int32_t* at = x.row_ptr.data() + (batch * x.lists + list) * (blocks + 1) + i / x.block_q;
  for (std::int32_t e = at[0]; e < at[1]; ++e) {
    if (x.columns[static_cast<std::size_t>(e)] != j / x.block_k) continue;
    const std::int32_t mask = x.bits.empty() ? -1 : x.bits[static_cast<std::size_t>(e)];
    if (mask < 0) return true;
    const std::int64_t word = (std::int64_t{mask} * x.block_q + i % x.block_q) * (x.block_k / 32) + j % x.block_k / 32;
    return x.words[static_cast<std::size_t>(word)] >> (j % 32) & 1u;
  }
  return false;
}

bool paged(const BlockLists& x, std::int32_t batch, std::int32_t list, std::int64_t j) {
  const std::int32_t at = batch * x.lists + list, n = x.counts[static_cast<std::size_t>(at)];
  const auto first = x.pages.begin() + std::int64_t{at} * x.most;
  return std::find(first, first + n, static_cast<std::int32_t>(j / x.cells)) != first + n;
}

// Sorted, in range, each once: what check_lists asks of them on the device.
void expect_well_formed(const BlockLists& x, const Allowed& a) {
  const std::int32_t blocks = (a.rows + x.block_q - 1) / x.block_q;
  ASSERT_EQ(x.row_ptr.size(), static_cast<std::size_t>(x.batches * x.lists * (blocks + 1)));
  ASSERT_EQ(x.row_ptr.front(), 0);
  ASSERT_EQ(x.row_ptr.back(), static_cast<std::int32_t>(x.columns.size()));
  ASSERT_TRUE(std::is_sorted(x.row_ptr.begin(), x.row_ptr.end()));
  ASSERT_TRUE(x.bits.empty() || x.bits.size() == x.columns.size());
  const auto masks = static_cast<std::int32_t>(x.words.size()) / (x.block_q * x.block_k / 32);
  for (const std::int32_t b : x.bits) ASSERT_TRUE(b >= -1 && b < masks);
  for (std::size_t i = 0; i + 1 < x.row_ptr.size(); ++i)
    for (std::int32_t e = x.row_ptr[i]; e < x.row_ptr[i + 1]; ++e) {
      ASSERT_TRUE(x.columns[static_cast<std::size_t>(e)] >= 0 && x.columns[static_cast<std::size_t>(e)] * x.block_k < a.keys);
      ASSERT_TRUE(e == x.row_ptr[i] || x.columns[static_cast<std::size_t>(e)] > x.columns[static_cast<std::size_t>(e) - 1]);
    }
}

std::vector<std::uint8_t> bytes(Rng& rng, std::size_t n) {
  std::vector<std::uint8_t> x(n);
  for (auto& b : x) b = static_cast<std::uint8_t>(rng.next());
  return x;
}

struct Call {
  std::int32_t rows;
  std::int64_t keys;
  bool causal, masked;
};

TEST(BlockLists, KeepWhatThePlanKeeps) {
  const Call calls[] = {{150, 150, true, false}, {70, 300, true, false}, {1, 200, true, false}, {5, 260, true, false},
                        {90, 40, true, false},   {130, 200, false, false}, {16, 129, false, false}, {67, 150, false, true},
                        {1, 170, false, true},   {64, 64, true, false}};
  std::set<int> seen;  // kinds of lists that occurred
  for (int round = 0; round < 120; ++round) {
    const Call& c = calls[round % 10];
    Rng rng(static_cast<std::uint64_t>(1000 + round));
    const PlanShape shape{4, 2, c.rows, c.keys, c.keys};
    const int batch = round % 3 ? 1 : 2;
    std::vector<Plan> plans;
    std::vector<Words> words;
    std::vector<std::span<const std::int32_t>> parts;
    for (int b = 0; b < batch; ++b) {
      const auto raw = bytes(rng, 4000);
      Draw draw(raw);
      plans.push_back(draw_plan(draw, shape));
      words.push_back(c.masked ? whole_call(plans.back()) : to_words({&plans.back(), 1}));
    }
    for (const Words& w : words) parts.emplace_back(w);
    std::vector<std::uint8_t> mask;
    if (c.masked) mask = bytes(rng, static_cast<std::size_t>(batch * c.rows * c.keys));
    for (auto& m : mask) m = m > 60;
    const Allowed allowed{c.rows, c.keys, c.causal, c.masked ? mask.data() : nullptr, c.masked ? batch : 1};
    const auto made = block_lists(parts, allowed);
    ASSERT_TRUE(made.ok()) << made.error().what;
    const BlockLists& x = made.value();
    seen.insert(x.dense ? 0 : x.cells ? 1 : x.bits.empty() ? 2 : 3);
    if (!x.dense) expect_well_formed(x, allowed);
    for (int b = 0; b < batch; ++b)
      for (std::int32_t h = 0; h < 4; ++h)
        for (std::int32_t i = 0; i < c.rows; ++i) {
          const auto allows = [&](std::int64_t j) {
            return c.masked ? mask[static_cast<std::size_t>((b * c.rows + i) * c.keys + j)] != 0 : !c.causal || j <= i + c.keys - c.rows;
          };
          std::int64_t own = c.causal ? i + c.keys - c.rows : c.keys - 1;
          if (c.masked)
            for (own = c.keys - 1; own >= 0 && !allows(own);) --own;
          for (std::int64_t j = 0; j < c.keys; ++j) {
            const bool want = allows(j) && KeptByPlan{plans[static_cast<std::size_t>(b)], 4}(h, i, own, j, j);
            const std::int32_t list = h / (4 / x.lists);
            // The kernels hide what lies above the diagonal; beside a mask there is none.
            const bool open = c.masked || allows(j);
            ASSERT_EQ(x.dense ? allows(j) : open && listed(x, c.rows, b, list, i, j), want)
                << "round " << round << " sequence " << b << " head " << h << " row " << i << " key " << j;
            if (x.cells) {
              ASSERT_EQ(open && paged(x, b, list, j), want) << "round " << round << " pages, head " << h << " key " << j;
            }
          }
        }
  }
  EXPECT_TRUE(seen.count(1) && seen.count(3)) << "the draw no longer reaches every kind";
}

TEST(BlockLists, WholeBlocksNeedNoMasks) {
  const BlockMap map{.heads = 2, .block_q = 128, .block_k = 128, .n_rows = 256, .n_keys = 300, .row_ptr = {0, 1, 3, 3, 4, 5}, .cols = {0, 0, 2, 1, 2}};
  const Words w = whole_call(plan_of(map));
  const std::span<const std::int32_t> parts[] = {w};
  for (const bool causal : {false, true}) {
    const auto x = block_lists(parts, {256, 300, causal});
    ASSERT_TRUE(x.ok()) << x.error().what;
    EXPECT_EQ(x.value().block_q, 128);
    EXPECT_EQ(x.value().block_k, 128);
    EXPECT_TRUE(x.value().bits.empty()) << "the diagonal and the last key are the kernel's";
    EXPECT_EQ(x.value().columns, (Words{0, 0, 2, 1, 2}));
  }
}

// A window's two edges look alike in all row blocks: one mask each, whatever the length.
TEST(BlockLists, EqualMasksAreKeptOnce) {
  const Words w = to_words(std::vector<Plan>{plan_of(Window{.sink = 4, .window = 200})});
  const std::span<const std::int32_t> parts[] = {w};
  std::size_t masks[2];
  for (const int n : {2048, 8192}) {
    const auto x = block_lists(parts, {n, n, true});
    ASSERT_TRUE(x.ok());
    masks[n > 2048] = x.value().words.size() / (128 * 2);
    EXPECT_LT(x.value().columns.size(), static_cast<std::size_t>(n / 128 * 8));
  }
  EXPECT_EQ(masks[0], masks[1]);
}

TEST(BlockLists, PagesAreAsLargeAsTheirBoundsAllow) {
  const auto cells = [](std::vector<Range> ranges, std::int64_t n) {
    Ranges r{.heads = 1, .block_q = 64, .n_rows = 2, .n = n, .row_ptr = {0, static_cast<std::int32_t>(ranges.size())}, .ranges = {}};
    r.ranges = std::move(ranges);
    const Words w = whole_call(plan_of(r));
    const std::span<const std::int32_t> parts[] = {w};
    return block_lists(parts, {2, n, true}).value().cells;
  };
  EXPECT_EQ(cells({{0, 512}, {1024, 1500}}, 1500), 256) << "the last key needs no boundary";
  EXPECT_EQ(cells({{0, 48}, {64, 80}}, 1500), 16);
  EXPECT_EQ(cells({{3, 4}}, 1500), 1);
}

TEST(BlockLists, WhatDoesNotFitIsNamed) {
  const Words good = to_words(std::vector<Plan>{plan_of(Window{.sink = 4, .window = 20})});
  const auto what = [](const Words& w, const Allowed& a) {
    const std::span<const std::int32_t> parts[] = {w};
    const auto x = block_lists(parts, a);
    return x.ok() ? std::string() : x.error().what;
  };
  EXPECT_EQ(what(good, {50, 50, true}), "");
  Words cut = good;
  cut.pop_back();
  EXPECT_NE(what(cut, {50, 50, true}).find("it was cut"), std::string::npos);
  Words far = whole_call(plan_of(BlockMap{1, 64, 64, 100, 100, {0, 1, 2}, {0, 1}}));
  EXPECT_EQ(what(far, {100, 100, true}), "");
  far.back() = 2;
  EXPECT_NE(what(far, {100, 100, true}).find("key block 2, need 0..1"), std::string::npos) << what(far, {100, 100, true});
  far.back() = 1;
  EXPECT_NE(what(far, {64, 100, true}).find("100 rows x 100 keys, need 1, 1 or 1 lists x 64 x 100"), std::string::npos) << what(far, {64, 100, true});
  const std::vector<std::uint8_t> mask(2500, 1);
  EXPECT_NE(what(good, {50, 50, false, mask.data(), 1}).find("plan without the mask"), std::string::npos);
  EXPECT_NE(what(good, {-1, 50, true}).find("-1 rows"), std::string::npos);
}

TEST(PlanOfShape, IsWhatTheMethodSays) {
  const auto words = [](const std::string& options, CallShape s) { return plan_of_shape(options, s); };
  CallShape s{.heads = 4, .kv_heads = 2, .rows = 300, .keys = 400, .head_dim = 64};
  const auto window = words("streamingllm:sink=4:window=50", s);
  ASSERT_TRUE(window.ok()) << window.error().what;
  EXPECT_EQ(window.value(), to_words(std::vector<Plan>{plan_of(Window{.sink = 4, .window = 50})}));
  EXPECT_EQ(words("dense", s).value(), to_words(std::vector<Plan>{Plan{}}));
  s.causal = false;
  EXPECT_EQ(words("streamingllm:sink=4:window=50", s).value(), to_words(std::vector<Plan>{Plan{}})) << "nothing is left out there";
  s.causal = true, s.rows = 401;
  EXPECT_EQ(words("streamingllm:sink=4:window=50", s).value(), to_words(std::vector<Plan>{Plan{}}));
  s.rows = 300;
  EXPECT_NE(words("xattention:stride=8", s).error().what.find("xattention looks at keys"), std::string::npos);
  EXPECT_NE(words("streamingllm audit=full", s).error().what.find("an audit looks at keys"), std::string::npos);
  EXPECT_NE(words("streamingllm max_loss=1%", s).error().what.find("a contract"), std::string::npos);
  EXPECT_NE(words("streamingllm:sink=-1", s).error().what.find("sink"), std::string::npos);
  s.kv_heads = 3;
  EXPECT_NE(words("dense", s).error().what.find("3 KV heads"), std::string::npos);
}

// All methods of the family answer without a tensor; none of them may look at one.
TEST(PlanOfShape, TakesEveryFixedMethod) {
  int fixed = 0;
  for (const MethodEntry& m : all_methods()) {
    if (m.card->family != "fixed") continue;
    ++fixed;
    for (const std::int32_t rows : {1, 512})
      EXPECT_TRUE(plan_of_shape(m.card->small, {.layer = 3, .heads = 4, .kv_heads = 2, .rows = rows, .keys = 512, .head_dim = 64}).ok())
          << m.card->slug;
  }
  EXPECT_GE(fixed, 4);
}

}  // namespace
}  // namespace lacuna
