// SPDX-License-Identifier: Apache-2.0
// MInference: the proofs of its sheet.
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <set>

#include "block/estimate/last_rows.h"
#include "block/estimate/pooled.h"
#include "block/stripes.h"
#include "method/calibrator.h"
#include "method/profile.h"
#include "test/support/planted_heads.h"
#include "test/support/problem.h"

namespace lacuna::method {
const MethodEntry& method_entry_minference();

namespace {

using test::keeps;
using test::make;
using test::MethodLab;

Grid grid_of(std::int64_t begin, std::int64_t end, std::int32_t heads = 1) {
  return {heads, static_cast<std::int32_t>(end - begin), end, begin};
}

TEST(MInference, AllDistancesAreDense) {
  MethodLab lab(2, 1, 400, 8);
  EXPECT_TRUE(is_dense(lab.plan(*make(method_entry_minference(), {{"slash", 400}}), 0, 400).value()));
  EXPECT_FALSE(
      is_dense(lab.plan(*make(method_entry_minference(), {{"slash", 120}, {"vertical", 40}}), 0, 400).value()));
}

// Every requested line is covered, nothing lies after a block's last row, ranges do not touch.
TEST(MInference, StripesCoverTheirLinesAndNoFutureKey) {
  Rng rng(4);
  for (int round = 0; round < 200; ++round) {
    const auto begin = static_cast<std::int64_t>(rng.below(300)), rows = static_cast<std::int64_t>(1 + rng.below(200));
    const Grid g = grid_of(begin, begin + rows);
    std::set<std::int32_t> columns, distances;
    for (int i = 0; i < 8; ++i) {
      columns.insert(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(g.n_keys))));
      distances.insert(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(g.n_keys))));
    }
    const std::vector<std::int32_t> c(columns.begin(), columns.end()), d(distances.begin(), distances.end());
    std::vector<std::vector<Range>> lists((static_cast<std::size_t>(g.n_rows) + 63) / 64);
    const block::Stripes stripes(g, 64, block::line_bits(c, g.n_keys), block::line_bits(d, g.n_keys));
    for (std::size_t u = 0; u < lists.size(); ++u) stripes.append(static_cast<std::int32_t>(u), lists[u]);
    const Ranges r = join_ranges(g, 64, 1, lists);
    ASSERT_TRUE(r.check().ok()) << r.check().error().what;
    for (std::int32_t i = 0; i < g.n_rows; ++i) {
      const std::int64_t own = g.first_key + i;
      for (const std::int32_t j : c)
        if (j <= own) {
          ASSERT_TRUE(r.keeps(g, 0, i, j)) << "column " << j << " row " << i;
        }
      for (const std::int32_t s : d)
        if (s <= own) {
          ASSERT_TRUE(r.keeps(g, 0, i, own - s)) << "distance " << s << " row " << i;
        }
    }
    for (std::size_t u = 0; u < lists.size(); ++u)
      for (const Range& x : lists[u])
        ASSERT_LE(x.end, std::min<std::int64_t>(begin + static_cast<std::int64_t>(u + 1) * 64, begin + rows));
  }
}

TEST(MInference, LineSumsAreThoseOfExactAttention) {
  for (const std::int64_t begin : {0, 37}) {
    MethodLab lab(4, 2, 150, 16, 3);
    const AttentionView x = lab.view(begin, 150);
    const block::LineSums sums = block::last_rows(x, 20, lab.context);
    for (int h = 0; h < 4; ++h) {
      std::vector<double> vertical(150, 0.0), slash(150, 0.0);
      for (std::int64_t i = 130; i < 150; ++i) {
        double l = 0;
        for (std::int64_t j = 0; j <= i; ++j) l += std::exp(lab.logit(h, i, j));
        for (std::int64_t j = 0; j <= i; ++j) {
          vertical[static_cast<std::size_t>(j)] += std::exp(lab.logit(h, i, j)) / l;
          slash[static_cast<std::size_t>(i - j)] += std::exp(lab.logit(h, i, j)) / l;
        }
      }
      for (int j = 0; j < 150; ++j) {
        ASSERT_NEAR(sums.vertical[h * 150 + j], vertical[static_cast<std::size_t>(j)], 1e-4) << h << " " << j;
        ASSERT_NEAR(sums.slash[h * 150 + j], slash[static_cast<std::size_t>(j)], 1e-4) << h << " " << j;
      }
    }
  }
}

// A column that all rows like and a diagonal that all rows like are found among random others.
TEST(MInference, FindsAPlantedColumnAndDiagonal) {
  constexpr int kN = 1200, kD = 32, kColumn = 333, kDistance = 517;
  MethodLab lab(1, 1, kN, kD, 8);
  for (float& f : lab.q) f *= 0.1f;
  for (int i = 0; i < kN; ++i) {
    lab.q_at(0, i)[0] = 6.0f;  // all rows look for channel 0
    lab.k_at(0, i)[0] = i == kColumn ? 6.0f : 0.0f;
    for (int c = 1; c < kD && i >= kDistance; ++c) lab.q_at(0, i)[c] = lab.k_at(0, i - kDistance)[c];
  }
  auto m = make(method_entry_minference(), {{"vertical", 31}, {"slash", 101}});
  auto p = lab.plan(*m, 0, kN);
  ASSERT_TRUE(p.ok());
  const Grid g = grid_of(0, kN);
  for (int i = 700; i < kN; ++i) {
    EXPECT_TRUE(keeps(p.value(), g, 0, i, kColumn)) << i;
    EXPECT_TRUE(keeps(p.value(), g, 0, i, i - kDistance)) << i;
  }
  EXPECT_FALSE(keeps(p.value(), g, 0, 1100, 800));
}

TEST(MInference, ForcedLinesAreAlwaysThere) {
  MethodLab lab(2, 2, 900, 8, 5);
  auto p = lab.plan(*make(method_entry_minference(), {{"vertical", 30}, {"slash", 100}}), 300, 900);
  ASSERT_TRUE(p.ok());
  const Grid g = grid_of(300, 900, 2);
  for (int h = 0; h < 2; ++h)
    for (int i : {0, 63, 64, 599}) {
      for (int j = 0; j < 30; ++j) EXPECT_TRUE(keeps(p.value(), g, h, i, j));
      for (int d = 0; d < 100; ++d) EXPECT_TRUE(keeps(p.value(), g, h, i, 300 + i - d));
    }
}

TEST(MInference, SmallChunksAreDense) {
  MethodLab lab(1, 1, 1000, 8);
  auto m = make(method_entry_minference(), {{"vertical", 30}, {"slash", 100}});
  EXPECT_TRUE(is_dense(lab.plan(*m, 800, 1000).value()));
  EXPECT_FALSE(is_dense(lab.plan(*m, 744, 1000).value()));
}

// ---- per-head shapes ----

using test::PlantedHeads;

Profile profile_of(nlohmann::json data, int layers = 1, int hq = 3) {
  Profile p;
  p.slug = "minference";
  p.model = {"Planted", layers, hq, hq, 32, 32, {RopeLayout::half_split, 10000}};
  p.data = std::move(data);
  return p;
}

TEST(MInference, EstimatesAreMadeForWantedHeadsAlone) {
  MethodLab lab(6, 2, 200, 16, 11);
  const AttentionView x = lab.view(40, 200);
  const std::vector<std::uint8_t> wanted = {0, 1, 0, 1, 1, 1};  // one of a group of three, and a whole group
  const auto copy = [](const float* from, std::size_t n) { return std::vector<float>(from, from + n); };
  const block::LineSums all = block::last_rows(x, 20, lab.context);
  const auto columns = copy(all.vertical, 6 * 200), distances = copy(all.slash, 6 * 200);
  const block::PooledScores every = block::pooled_scores(x, 64, 64, lab.context);
  const auto pooled = copy(every.score, static_cast<std::size_t>(6 * every.row_blocks * every.key_blocks));
  lab.context.scored_heads = 0;
  const block::LineSums some = block::last_rows(x, 20, lab.context, wanted);
  EXPECT_EQ(lab.context.scored_heads, 4);
  const block::PooledScores few = block::pooled_scores(x, 64, 64, lab.context, wanted);
  EXPECT_EQ(lab.context.scored_heads, 8);
  for (int h = 0; h < 6; ++h) {
    if (!wanted[static_cast<std::size_t>(h)]) continue;
    EXPECT_EQ(copy(some.vertical + h * 200, 200),
              std::vector<float>(columns.begin() + h * 200, columns.begin() + (h + 1) * 200))
        << h;
    EXPECT_EQ(copy(some.slash + h * 200, 200),
              std::vector<float>(distances.begin() + h * 200, distances.begin() + (h + 1) * 200))
        << h;
    const auto size = static_cast<std::ptrdiff_t>(every.row_blocks * every.key_blocks);
    EXPECT_EQ(copy(few.row(h, 0), static_cast<std::size_t>(size)),
              std::vector<float>(pooled.begin() + h * size, pooled.begin() + (h + 1) * size))
        << h;
  }
}

// Calibrated on one prompt, written and read, used on another: each head has its shape, and what it attends to.
TEST(MInference, ACalibratedPlanSendsEachHeadItsWay) {
  PlantedHeads seen(2048), lab(1900, 21);
  auto m = make(method_entry_minference(), {{"keep", 0.2}});
  const auto calibrator = m->calibrator();
  for (int begin = 0; begin < 2048; begin += 512)
    ASSERT_TRUE(calibrator->observe(seen.view(begin, begin + 512), seen.context).ok());
  auto data = calibrator->finish();
  ASSERT_TRUE(data.ok()) << data.error().what;
  const char* kinds[] = {"a-shape", "vertical-slash", "block-sparse"};
  for (int h = 0; h < 3; ++h)
    EXPECT_EQ(data.value()["shapes"][0][static_cast<std::size_t>(h)]["kind"], kinds[h]) << data.value().dump();
  EXPECT_EQ(data.value()["unit"], "share");
  auto back = parse_profile(profile_text(profile_of(data.value())));
  ASSERT_TRUE(back.ok()) << back.error().what;
  ASSERT_TRUE(m->use(back.value()).ok());

  lab.context.scored_heads = 0;
  auto p = lab.plan(*m, 1200, 1900);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(lab.context.scored_heads, 2) << "one head for the lines, one for the blocks";
  ASSERT_EQ(p.value().routes.size(), 3u);
  const auto pattern = [&](int h) -> const Pattern& {
    return p.value().patterns[static_cast<std::size_t>(p.value().route(h))];
  };
  EXPECT_TRUE(std::holds_alternative<Window>(pattern(0)));
  EXPECT_TRUE(std::holds_alternative<Ranges>(pattern(1)));
  EXPECT_TRUE(std::holds_alternative<BlockMap>(pattern(2)));
  const Grid g = grid_of(1200, 1900, 3);
  double kept[3] = {}, all = 0, pairs[3] = {};
  for (int i = 0; i < g.n_rows; i += 29, ++all)
    for (int h = 0; h < 3; ++h) {
      double sum = 0, of = 0;
      for (int j = 0; j <= 1200 + i; ++j) {
        const double w = std::exp(lab.logit(h, 1200 + i, j));
        of += w;
        const bool k = keeps(p.value(), g, h, i, j);
        sum += k ? w : 0;
        pairs[h] += k ? 1.0 / (1201 + i) : 0.0;
      }
      kept[h] += sum / of;
    }
  for (int h = 0; h < 3; ++h) {
    EXPECT_GT(kept[h] / all, 0.85) << "head " << h;
    EXPECT_LT(pairs[h] / all, 0.35) << "head " << h;
  }
}

TEST(MInference, LayersAndRowsOutsideAProfileAreDense) {
  MethodLab lab(2, 1, 1200, 16, 5);
  auto m = make(method_entry_minference());
  const nlohmann::json window = {{"kind", "a-shape"}, {"sink", 4}, {"window", 0.1}};
  const nlohmann::json lines = {{"kind", "vertical-slash"}, {"vertical", 0.01}, {"slash", 0.1}};
  ASSERT_TRUE(
      m->use(profile_of({{"layers", 2}, {"heads", 2}, {"unit", "share"}, {"shapes", {nullptr, {window, lines}}}}, 3, 2))
          .ok());
  EXPECT_TRUE(is_dense(lab.plan(*m, 0, 1200, 0).value())) << "a layer that was never judged";
  EXPECT_TRUE(is_dense(lab.plan(*m, 0, 1200, 2).value())) << "a layer the profile does not have";
  EXPECT_TRUE(is_dense(lab.plan(*m, 1199, 1200, 1).value())) << "decode";
  const auto few = lab.plan(*m, 1100, 1200, 1).value();  // too few rows for an estimate, and a window needs none
  EXPECT_EQ(few.route(1), kRouteFull);
  ASSERT_GE(few.route(0), 0);
  const auto& w = std::get<Window>(few.patterns[static_cast<std::size_t>(few.route(0))]);
  EXPECT_EQ(w.sink, 4);
  EXPECT_EQ(w.window, 120);
  const auto both = lab.plan(*m, 0, 1200, 1).value();
  EXPECT_NE(both.route(0), both.route(1));
  EXPECT_GE(std::min(both.route(0), both.route(1)), 0);
}

TEST(MInference, SaysWhatIsWrongWithAProfile) {
  using J = nlohmann::json;
  const J good = {{"layers", 1},
                  {"heads", 3},
                  {"unit", "share"},
                  {"shapes",
                   {{{{"kind", "a-shape"}, {"sink", 4}, {"window", 0.1}},
                     {{"kind", "block-sparse"}, {"blocks", 0.2}},
                     {{"kind", "vertical-slash"}, {"vertical", 0.1}, {"slash", 0.2}}}}}};
  auto m = make(method_entry_minference());
  ASSERT_TRUE(m->use(profile_of(good)).ok());
  const auto refused = [&](const std::function<void(J&)>& change, std::initializer_list<const char*> parts) {
    J bad = good;
    change(bad);
    const auto status = m->use(profile_of(bad));
    ASSERT_FALSE(status.ok()) << bad.dump();
    for (const char* part : parts)
      EXPECT_NE(status.error().what.find(part), std::string::npos) << status.error().what << " has no " << part;
  };
  for (const char* key : {"layers", "heads", "unit", "shapes"}) refused([&](J& j) { j.erase(key); }, {key, "missing"});
  refused([](J& j) { j["layers"] = 2; }, {"data.layers", "got 2", "1..1"});
  refused([](J& j) { j["heads"] = 9; }, {"data.heads", "got 9", "3..3"});
  refused([](J& j) { j["unit"] = "keys"; }, {"data.unit", "'keys'", "share or count"});
  refused([](J& j) { j["shapes"] = J::array(); }, {"data.shapes", "a list of 1"});
  refused([](J& j) { j["shapes"][0].erase(0); }, {"data.shapes[0]", "a list of 2", "a list of 3"});
  refused([](J& j) { j["shapes"][0][1] = 7; }, {"data.shapes[0][1]", "an object"});
  refused([](J& j) { j["shapes"][0][1]["kind"] = "dilated"; }, {"data.shapes[0][1].kind", "'dilated'", "block-sparse"});
  refused([](J& j) { j["shapes"][0][0].erase("sink"); }, {"data.shapes[0][0].sink", "missing"});
  refused([](J& j) { j["shapes"][0][0]["window"] = 100; }, {"data.shapes[0][0].window", "got 100", "0..1"});
  refused([](J& j) { j["shapes"][0][2]["slash"] = -0.5; }, {"data.shapes[0][2].slash", "-0.5"});
  refused([](J& j) { j["shapes"][0][2]["vertical"] = "many"; }, {"data.shapes[0][2].vertical"});
  J many = {{"layers", 1}, {"heads", 64}, {"unit", "count"}, {"shapes", J::array({J::array()})}};
  for (int h = 0; h < 64; ++h) many["shapes"][0].push_back({{"kind", "a-shape"}, {"sink", 4}, {"window", 100 + h}});
  const auto status = m->use(profile_of(many, 1, 64));
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.error().what.find("64 different sinks and windows"), std::string::npos) << status.error().what;
}

TEST(MInference, CalibrationSaysWhenATextIsTooShort) {
  PlantedHeads lab(1100);
  auto m = make(method_entry_minference());
  const auto c = m->calibrator();
  EXPECT_NE(c->finish().error().what.find("text too short: got prompts of up to 0 tokens"), std::string::npos);
  ASSERT_TRUE(c->observe(lab.view(0, 600), lab.context).ok());
  const std::string what = c->finish().error().what;
  for (const char* part : {"text too short", "600 tokens", "1024 or more", "chunks of 256", "-c"})
    EXPECT_NE(what.find(part), std::string::npos) << what;
  ASSERT_TRUE(c->observe(lab.view(600, 1100), lab.context).ok());
  EXPECT_TRUE(c->finish().ok());
}

// Through a session: heads of a group go three ways in one call, and the result is exact attention over it.
TEST(MInference, ACallOfMixedHeadsIsExactOverWhatItKeeps) {
  using J = nlohmann::json;
  const J window = {{"kind", "a-shape"}, {"sink", 3}, {"window", 0.07}}, full = {{"kind", "full"}},
          blocks = {{"kind", "block-sparse"}, {"blocks", 0.3}},
          lines = {{"kind", "vertical-slash"}, {"vertical", 0.02}, {"slash", 0.1}};
  const auto path = (std::filesystem::temp_directory_path() / fmt::format("lacuna-heads-{}.json", getpid())).string();
  const std::string spec = "minference:sink=2:window=20:last_rows=16:profile=" + path;
  for (const J& layer :
       {J{window, lines, blocks, full}, J{lines, lines, window, window}, J{blocks, blocks, blocks, lines}}) {
    Profile profile = profile_of({{"layers", 1}, {"heads", 4}, {"unit", "share"}, {"shapes", J::array({layer})}}, 1, 4);
    profile.model.hkv = 2;
    profile.model.dk = profile.model.dv = 16;
    ASSERT_TRUE(write_profile(profile, path).ok());
    const testing::Problem problem({4, 2, 600, 16, 1});
    for (const int rows : {600, 200}) {
      testing::Output o(4, rows, 16);
      const AttendCall c = testing::call_of(problem, 600 - rows, 600, 600, o);
      const auto wanted = testing::kept_attention(spec, c);
      ASSERT_TRUE(wanted.ok()) << wanted.error().what;
      auto session = testing::open(spec);
      ASSERT_TRUE(session.ok()) << session.error().what;
      ASSERT_TRUE(session.value()->attend(c).ok());
      EXPECT_LT(session.value()->report().prefill.density(), 0.9);
      for (int h = 0; h < 4; ++h)
        for (int i = 0; i < rows; ++i)
          for (int d = 0; d < 16; ++d)
            ASSERT_NEAR(o.row(h, i)[d], wanted.value().row(h, i)[d], 3e-5)
                << layer.dump() << " head " << h << " row " << i;
    }
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace lacuna::method
