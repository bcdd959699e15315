// SPDX-License-Identifier: Apache-2.0
// The search of head shapes: planted heads are found, sizes fit the budget, the state goes on.
#include "block/calibrate/shape_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "test/support/planted_heads.h"

namespace lacuna::block {
namespace {

using test::PlantedHeads;

// The head of each shape, by its place in PlantedHeads.
constexpr HeadKind kPlanted[] = {HeadKind::a_shape, HeadKind::vertical_slash, HeadKind::block_sparse};

TEST(ShapeSearch, FindsPlantedHeads) {
  PlantedHeads lab(2048);
  for (const std::int64_t begin : {0, 1536}) {  // a whole prompt, and its last chunk
    ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}});
    ASSERT_TRUE(search.add(lab.view(begin, 2048), lab.context).ok());
    for (int h = 0; h < 3; ++h) {
      const auto f = search.found(0, h);
      ASSERT_TRUE(f.has_value());
      EXPECT_EQ(static_cast<int>(f->kind), static_cast<int>(kPlanted[h])) << "head " << h << " from row " << begin;
      EXPECT_GE(f->reach, 0) << "head " << h;
      EXPECT_LT(f->reach, 0.6) << "head " << h << ": a share";
      // A prompt's first rows see too few keys to leave any out and keep the planted ones.
      if (begin > 0) {
        EXPECT_LT(f->lost, 0.1) << "head " << h;
      }
    }
  }
}

// With the same heads in another order the shapes follow them: nothing is decided by a head's place.
TEST(ShapeSearch, ShapesFollowTheirHeads) {
  PlantedHeads lab(2048);
  for (auto* t : {&lab.q, &lab.k})
    std::rotate(t->begin(), t->begin() + static_cast<std::ptrdiff_t>(lab.n * lab.d), t->end());
  ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}});
  ASSERT_TRUE(search.add(lab.view(1536, 2048), lab.context).ok());
  for (int h = 0; h < 3; ++h)
    EXPECT_EQ(static_cast<int>(search.found(0, h)->kind), static_cast<int>(kPlanted[(h + 1) % 3])) << h;
}

// What is found keeps about the share of the keys that was asked for, whatever the shape.
TEST(ShapeSearch, SizesCostTheSame) {
  PlantedHeads lab(2048);
  for (const double keep : {0.15, 0.3}) {
    ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = keep, .lines = {}});
    const AttentionView x = lab.view(1536, 2048);
    ASSERT_TRUE(search.add(x, lab.context).ok());
    std::vector<HeadShape> shapes;
    for (int h = 0; h < 3; ++h) {
      const auto f = search.found(0, h).value();
      const auto count = [&](double share, int forced) { return (h == 1 ? forced : 0) + std::llround(share * 2048); };
      HeadShape s{.kind = f.kind, .columns = count(f.columns, 30), .reach = count(f.reach, 100)};
      if (f.kind == HeadKind::block_sparse) s.share = f.reach;
      shapes.push_back(s);
    }
    double keys[3] = {};  // that a row block touches
    const Ranges stripes = stripes_of(x, shapes, {}, lab.context);
    const BlockMap blocks = blocks_of(x, shapes, lab.context);
    for (std::int32_t u = 0; u < 8; ++u) {
      keys[0] += static_cast<double>(shapes[0].reach + 63) + 30;
      for (const Range& r : stripes.row(1, u)) keys[1] += r.end - r.begin;
      keys[2] += 64.0 * static_cast<double>(blocks.row(2, u).size());
      EXPECT_TRUE(stripes.row(0, u).empty() && blocks.row(1, u).empty()) << "other heads have no lists";
    }
    for (int h = 0; h < 3; ++h) EXPECT_NEAR(keys[h] / 8 / (1792 + 32), keep, 0.04) << "head " << h << " keep " << keep;
  }
}

TEST(ShapeSearch, CountsAreThoseOfThePaper) {
  PlantedHeads lab(2048);
  ShapeSearch search({.of = ShapeSearch::Of::counts, .keep = 1.0, .lines = {}});
  ASSERT_TRUE(search.add(lab.view(1536, 2048), lab.context).ok());
  const auto window = search.found(0, 0).value(), lines = search.found(0, 1).value();
  EXPECT_EQ(static_cast<int>(window.kind), static_cast<int>(HeadKind::a_shape));
  EXPECT_EQ(window.columns, 100);
  EXPECT_EQ(window.reach, 800);
  ASSERT_EQ(static_cast<int>(lines.kind), static_cast<int>(HeadKind::vertical_slash));
  const std::set<std::pair<double, double>> list = {
      {30, 800}, {100, 750}, {100, 800}, {500, 700}};  // others keep 2,048 keys whole
  EXPECT_TRUE(list.contains({lines.columns, lines.reach})) << lines.columns << " " << lines.reach;
}

// All is kept at keep = 1: there is nothing to choose, and no head is sparse.
TEST(ShapeSearch, EverythingIsFull) {
  PlantedHeads lab(1536);
  ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 1.0, .lines = {}});
  ASSERT_TRUE(search.add(lab.view(1024, 1536), lab.context).ok());
  for (int h = 0; h < 3; ++h) EXPECT_EQ(static_cast<int>(search.found(0, h)->kind), static_cast<int>(HeadKind::full));
}

TEST(ShapeSearch, ShortCallsAreNoEvidence) {
  PlantedHeads lab(2048);
  ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}});
  for (const auto& [begin, end] : {std::pair{0, 512}, {512, 1023}, {1023, 1200}})  // few keys, few keys, few rows
    ASSERT_TRUE(search.add(lab.view(begin, end), lab.context).ok());
  EXPECT_FALSE(search.any());
  EXPECT_FALSE(search.found(0, 0).has_value());
  EXPECT_EQ(search.longest(), 1200);
  const auto before = search.save();
  ASSERT_TRUE(search.add(lab.view(944, 1200), lab.context).ok());
  EXPECT_TRUE(search.any());
  // Less than an eighth further: not judged again. Another prompt: judged.
  const auto judged = search.save();
  ASSERT_TRUE(search.add(lab.view(1044, 1300), lab.context).ok());
  EXPECT_EQ(search.save()["layers"], judged["layers"]);
  ASSERT_TRUE(search.add(lab.view(0, 1200), lab.context).ok());
  EXPECT_NE(search.save()["layers"], judged["layers"]);
  EXPECT_NE(before["layers"], judged["layers"]);
}

TEST(ShapeSearch, GoesOnFromItsState) {
  PlantedHeads lab(2048), other(2048, 9);
  const ShapeSearch::Settings settings{.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}};
  ShapeSearch whole(settings), before(settings), after(settings);
  for (ShapeSearch* s : {&whole, &before}) ASSERT_TRUE(s->add(lab.view(0, 2048), lab.context).ok());
  ASSERT_TRUE(after.load(nlohmann::json::parse(before.save().dump())).ok());
  for (ShapeSearch* s : {&whole, &after}) ASSERT_TRUE(s->add(other.view(0, 2048), other.context).ok());
  EXPECT_EQ(after.save(), whole.save());
}

TEST(ShapeSearch, ADamagedStateChangesNothing) {
  PlantedHeads lab(1200);
  ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}});
  ASSERT_TRUE(search.add(lab.view(0, 1200), lab.context).ok());
  const auto good = search.save();
  const auto refused = [&](const char* key, const nlohmann::json& value, const char* part) {
    auto bad = good;
    bad[key] = value;
    const auto status = search.load(bad);
    ASSERT_FALSE(status.ok()) << key;
    EXPECT_NE(status.error().what.find(part), std::string::npos) << status.error().what;
  };
  refused("keep", 0.3, "another 'keep'");
  refused("of", 1, "another 'of'");
  refused("lines", {64, 30, 99}, "another 'lines'");
  refused("heads", -1, "damaged");
  refused("heads", 4, "damaged");
  refused("heads", "three", "damaged");
  refused("longest", 1e30, "damaged");
  refused("layers", nullptr, "damaged");
  refused("layers", {{1, 2}}, "damaged");
  auto negative = good["layers"];
  negative[0][1] = -1;
  refused("layers", negative, "damaged");
  negative[0][1] = "x";
  refused("layers", negative, "damaged");
  for (const char* text : {"null", "[]", "{}", "3"})
    EXPECT_FALSE(search.load(nlohmann::json::parse(text)).ok()) << text;
  EXPECT_EQ(search.save(), good);
}

TEST(ShapeSearch, LayersOfOtherHeadsAreRefused) {
  PlantedHeads lab(1200);
  test::MethodLab two(2, 2, 1200, 16);
  ShapeSearch search({.of = ShapeSearch::Of::shares, .keep = 0.2, .lines = {}});
  ASSERT_TRUE(search.add(lab.view(0, 1200), lab.context).ok());
  const auto status = search.add(two.view(0, 1200, 1), two.context);
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().what.find("layer 1 has 2 query heads, others 3"), std::string::npos) << status.error().what;
}

}  // namespace
}  // namespace lacuna::block
