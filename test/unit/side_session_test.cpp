// SPDX-License-Identifier: Apache-2.0
// What a method gets to see of side data: the same from a host's kept copy, from a call without one, and
// whatever the order of the cells.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "engine/session.h"
#include "support/method_lab.h"
#include "support/side_case.h"

namespace lacuna::test {
namespace {

constexpr std::int16_t kChannels[] = {3, 60, 11, 0, 63, 7};

// Keeps everything, and writes down what it was shown.
class Looker final : public Method {
 public:
  const Card& card() const override {
    static const Card card{.slug = "looker"};
    return card;
  }
  void params(ParamVisitor&) override {}
  SideSpec side(int layer) const override {
    if (layer == 0) return {};
    return {.page = 16, .int4 = true, .labels = 3, .label_heads = 2, .channels = kChannels, .pool = 32};
  }
  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    seen = x.cells.side;
    op::PageScores::Args a;
    x.ask(a);
    a.pages = x.cells.side.pages;
    if (!a.pages.data) return dense_plan("no pages");
    a.score_row = tiles_of(a.pages.pages()) * kTileKeys;
    a.score_head = a.score_row * a.n_rows;
    bound.assign(static_cast<std::size_t>(a.score_head * a.hq), 0.0f);
    a.score = bound.data();
    context.run<op::PageScores>(a);
    bound_row = a.score_row;
    keys.clear();
    for (std::int64_t c = 0; c < x.cells.n; ++c) keys.push_back(x.cells.segment->key(c));
    return dense_plan("looks only");
  }
  mutable SideView seen;
  mutable std::vector<float> bound;
  mutable std::int64_t bound_row = 0;
  mutable std::vector<std::int64_t> keys;
};

struct Call {
  RawCache k{Dtype::f16, 100, 2, 64}, v{Dtype::f16, 100, 2, 64};
  std::vector<float> q = std::vector<float>(4 * 64), out = q;
  AttendCall call;
  Call() {
    Rng rng(5);
    k.fill(rng);
    v.fill(rng);
    for (auto& x : q) x = static_cast<float>(rng.normal());
    call.layer = 1;
    call.q = contiguous(q.data(), Dtype::f32, 1, 4, 1, 64);
    call.k = k.tensor();
    call.v = v.tensor();
    call.out = contiguous(out.data(), Dtype::f32, 1, 4, 1, 64);
  }
};

TEST(SideOfASession, KeptEqualsMadeForTheCall) {
  Call c;
  Session::Impl s;
  auto owned = std::make_unique<Looker>();
  const Looker& looker = *owned;
  s.method = std::move(owned);
  s.have = detect_features();
  const auto pool = make_thread_pool(2);
  s.parallel = pool.get();
  ASSERT_TRUE(s.attend(c.call).ok());
  ASSERT_TRUE(looker.seen.pages.data && looker.seen.int4.data && looker.seen.labels.data && looker.seen.pooled.data);
  const std::vector<float> bound = looker.bound;
  EXPECT_EQ(looker.seen.pages.data, s.own_side.view().pages.data);

  PackedTensor kept(PackedTensor::Role::key, Dtype::f16, 100, 2, 64, Precision::fast, {}, {}, s.side_request(1));
  kept.write(c.k.tensor(), 0, 100);
  EXPECT_EQ(kept.verify(c.k.tensor()), "");
  EXPECT_EQ(kept.bytes(), kept.bytes_by_kind().sum());
  EXPECT_GT(kept.bytes_by_kind().int4, 0u);
  c.call.packed_k = &kept;
  ASSERT_TRUE(s.attend(c.call).ok());
  EXPECT_NE(looker.seen.pages.data, s.own_side.view().pages.data) << "the host's copy is read";
  EXPECT_EQ(first_difference(looker.seen, s.own_side.view()), "");
  EXPECT_EQ(looker.bound, bound);

  PackedTensor bare(PackedTensor::Role::key, Dtype::f16, 100, 2, 64, Precision::fast);
  c.call.packed_k = &bare;
  ASSERT_TRUE(s.attend(c.call).ok());
  EXPECT_EQ(looker.seen.pages.data, s.own_side.view().pages.data) << "a copy without side data does not serve";
  EXPECT_EQ(looker.bound, bound);

  c.call.layer = 0;
  ASSERT_TRUE(s.attend(c.call).ok());
  EXPECT_FALSE(looker.seen.pages.data) << "layer 0 asked for nothing";
}

// Two sequences in one cache, cells mixed: the words hide the other one's cells, and cells map to keys.
TEST(SideOfASession, CellsOfOthersAreHidden) {
  Call c;
  std::vector<std::uint16_t> mask(100, float_to_half(-INFINITY));
  std::vector<std::int32_t> pos(100, -1);
  std::vector<std::int32_t> mine;
  for (int i = 0; i < 40; ++i) mine.push_back(i * 37 % 100 / 2 * 2);  // even cells below 100, some twice
  std::sort(mine.begin(), mine.end());
  mine.erase(std::unique(mine.begin(), mine.end()), mine.end());
  for (std::size_t j = 0; j < mine.size(); ++j) {
    mask[static_cast<std::size_t>(mine[j])] = 0;
    pos[static_cast<std::size_t>(mine[j])] = static_cast<std::int32_t>(mine.size() - 1 - j);  // from the back
  }
  const std::int32_t row_cell = mine.front();
  c.call.mask = {mask.data(), 100, &row_cell, pos.data()};
  Session::Impl s;
  auto owned = std::make_unique<Looker>();
  const Looker& looker = *owned;
  s.method = std::move(owned);
  s.have = detect_features();
  const auto pool = make_thread_pool(1);
  s.parallel = pool.get();
  ASSERT_TRUE(s.attend(c.call).ok());
  ASSERT_FALSE(looker.keys.empty()) << s.note;
  for (std::int64_t cell = 0; cell < 100; ++cell) EXPECT_EQ(looker.keys[static_cast<std::size_t>(cell)], pos[static_cast<std::size_t>(cell)]);
  for (std::int64_t p = 0; p < 7; ++p) {
    const bool any = std::any_of(mine.begin(), mine.end(), [p](int cell) { return cell / 16 == p; });
    EXPECT_EQ(std::isfinite(looker.bound[static_cast<std::size_t>(p)]), any);
  }
}

TEST(SideOfALab, IsWhatASessionShows) {
  MethodLab lab(4, 2, 90, 64);
  Looker looker;
  ASSERT_TRUE(lab.plan(looker, 69, 70, 1).ok());
  ASSERT_TRUE(looker.seen.labels.data);
  for (int h = 0; h < 4; ++h)
    for (std::int64_t j = 0; j < 70; ++j)
      EXPECT_GE(looker.bound[static_cast<std::size_t>(h * looker.bound_row + j / 16)] / 8, lab.logit(h, 69, j) - 1e-5);
  EXPECT_EQ(looker.keys[69], 69);
  EXPECT_EQ(looker.keys[70], -1);
}

}  // namespace
}  // namespace lacuna::test
