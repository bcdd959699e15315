// SPDX-License-Identifier: Apache-2.0
// From trials in a session to a table of choices: what was tried is what the audit would see, an interrupted run goes on
// to the same sums, bad files are refused by name, and choices follow costs and losses.
#include "engine/tune.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/session.h"
#include "support/problem.h"

namespace lacuna {
namespace {

using testing::Output;
using testing::Problem;

const std::vector<std::string> kMethods = {"streamingllm:sink=4:window=64", "streamingllm:sink=4:window=4096", "xattention:mass=0.5:block=64"};

TrialSums empty_sums() {
  TrialSums s;
  s.methods = kMethods;
  s.bands = {400, 700};
  return s;
}

// A session that tries methods.
struct Trying {
  std::unique_ptr<Session> session;
  explicit Trying(const std::string& state = "", std::uint64_t seed = 1) {
    Options o;
    o.method = "tuned";
    o.calibrate = true;
    o.precision = Precision::high;
    o.threads = 1;
    o.seed = seed;
    session = std::move(Session::open(o).value());
    const auto loaded = session->load_calibration(state.empty() ? nlohmann::json{{"model", as_json(ModelFacts{})}, {"state", as_json(empty_sums())}}.dump() : state);
    EXPECT_TRUE(loaded.ok()) << loaded.error().what;
  }
  void read(const Problem& p, int begin, int end) {
    for (int layer = 0; layer < 2; ++layer) {
      Output o(p.s.hq, end - begin, p.s.d);
      AttendCall c = testing::call_of(p, begin, end, end, o);
      c.layer = layer;
      const auto done = session->attend(c);
      ASSERT_TRUE(done.ok()) << done.error().what;
    }
  }
  TrialSums sums() const {
    const auto found = nlohmann::json::parse(session->finish_calibration().value());
    return trial_sums(found["data"], "data").value();
  }
};

const Problem& problem() {
  static const Problem p({4, 2, 600, 16, 1});
  return p;
}

// The lost mass of a window in one row, in double precision.
double lost_by_window(const Problem& p, int h, int row, int sink, int window) {
  double all = 0, kept = 0;
  for (int j = 0; j <= row; ++j) {
    double dot = 0;
    for (int d = 0; d < p.s.d; ++d)
      dot += static_cast<double>(p.q[p.at(h, row) + static_cast<std::size_t>(d)]) * half_to_float(p.k[p.at(h / 2, j) + static_cast<std::size_t>(d)]);
    const double e = std::exp(dot / std::sqrt(p.s.d));
    all += e;
    if (j < sink || row - j < window) kept += e;
  }
  return 1 - kept / all;
}

TEST(Tune, TrialsSeeWhatAMethodWouldLoseAndKeep) {
  Trying t;
  t.read(problem(), 0, 600);
  const TrialSums s = t.sums();
  ASSERT_EQ(s.layers, 2);
  ASSERT_EQ(s.heads, 4);
  EXPECT_EQ(s.longest, 600);
  EXPECT_EQ(s.cell(0, 0).rows, 0) << "a call of 600 keys belongs to the band up to 700";
  const auto& c = s.cell(1, 0);
  ASSERT_GT(c.rows, 3);
  double mean = 0;  // over all rows that count, where the trial drew a few
  for (int row = 255; row < 600; ++row) mean += lost_by_window(problem(), 1, row, 4, 64) / 345;
  EXPECT_NEAR(c.lost[s.at(0, 1)] / static_cast<double>(c.rows), mean, 0.1);
  EXPECT_EQ(c.kept[s.at(0, 1)], 68.0 * static_cast<double>(c.rows));
  EXPECT_EQ(c.kept[s.at(1, 1)], c.pairs) << "a window wider than the text keeps all";
  EXPECT_EQ(c.lost[s.at(1, 1)], 0);
  EXPECT_GT(c.lost[s.at(2, 1)], 0);
  EXPECT_LT(c.kept[s.at(2, 1)], c.pairs);
  EXPECT_EQ(t.session->report().prefill.density(), 1.0) << "the run itself is dense";
}

TEST(Tune, AnInterruptedRunGoesOnToTheSameSums) {
  Trying whole, first;
  for (const int begin : {0, 200, 400}) whole.read(problem(), begin, begin + 200);
  first.read(problem(), 0, 200);
  first.read(problem(), 200, 400);
  Trying second(first.session->calibration().value());
  second.read(problem(), 400, 600);
  EXPECT_EQ(as_json(second.sums()), as_json(whole.sums()));
  Trying other("", 2);
  for (const int begin : {0, 200, 400}) other.read(problem(), begin, begin + 200);
  EXPECT_NE(as_json(other.sums()), as_json(whole.sums())) << "another seed draws other rows";
}

TEST(Tune, BadSumsAreRefusedByName) {
  Trying t;
  t.read(problem(), 0, 600);
  const nlohmann::json good = as_json(t.sums());
  ASSERT_TRUE(trial_sums(good, "s").ok());
  const auto refused = [&](const char* place, nlohmann::json value, const char* part) {
    nlohmann::json bad = good;
    bad[nlohmann::json::json_pointer(place)] = std::move(value);
    const auto got = trial_sums(bad, "s");
    ASSERT_FALSE(got.ok()) << place;
    EXPECT_NE(got.error().what.find(part), std::string::npos) << got.error().what;
  };
  refused("/methods", nlohmann::json::array(), "s.methods");
  refused("/bands", {700, 400}, "s.bands: lengths must ascend");
  refused("/layers", 3, "s.cells");
  refused("/heads", -1, "s.heads");
  refused("/cells/2/lost", {1.0}, "s.cells[2].lost");
  refused("/cells/2/rows", "many", "s.cells[2].rows");
}

// Two layers of two heads in one band; what each of two windows loses in each head is given.
TrialSums planted(double narrow_lost, double wide_lost) {
  TrialSums s;
  s.methods = {"narrow", "wide"};
  s.bands = {1024, 2048};
  s.layers = s.heads = 2;
  s.longest = 2048;
  for (int i = 0; i < 4; ++i) {
    auto& c = s.cells.emplace_back();
    c.rows = 100;
    c.pairs = 100 * (i < 2 ? 600.0 : 1500.0);
    c.kept = {0.1 * c.pairs, 0.1 * c.pairs, 0.5 * c.pairs, 0.5 * c.pairs};
    // The first head of a layer loses what is given; the second loses nothing by a window.
    c.lost = {100 * narrow_lost, 0, 100 * wide_lost, 0};
  }
  return s;
}
CostModel even_costs() {
  CostModel m;
  m.prefill.pair = 1e-9;
  m.prefill.candidates = {{"narrow", {}, 1.1e-9}, {"wide", {}, 1e-9}};
  return m;
}

TEST(Tune, ChoicesFollowLossesAndTheLimit) {
  const auto choices = [](double limit) { return tune(planted(0.2, 0.01), even_costs(), limit, 512, 2).value(); };
  const Tuning tight = choices(0.001), middle = choices(0.006), loose = choices(0.5);
  for (std::size_t band = 0; band < 2; ++band)
    for (int layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(tight.table.methods[tight.table.at(band, layer)[1]], "narrow") << "it costs nothing";
      EXPECT_EQ(tight.table.methods[tight.table.at(band, layer)[0]], "dense");
      EXPECT_EQ(middle.table.methods[middle.table.at(band, layer)[0]], "wide");
      EXPECT_EQ(loose.table.methods[loose.table.at(band, layer)[0]], "narrow");
    }
  EXPECT_NEAR(middle.lost, 0.005, 1e-9);
  EXPECT_NEAR(loose.seconds / loose.dense_seconds, 0.11, 1e-9);
  EXPECT_LT(loose.seconds, middle.seconds);
  EXPECT_EQ(loose.table.methods, (std::vector<std::string>{"dense", "narrow"})) << "what no head takes is not in the table";
}

// A choice made by head is paid for by the heads that take it; one made for a layer is paid for whole.
TEST(Tune, AHeadPaysForItsOwnPartOfAnEstimate) {
  TrialSums s = planted(0.2, 0.2);
  s.methods = {"streamingllm", "sampleattention"};
  for (auto& c : s.cells) c.lost[s.at(1, 0)] = 0;  // what the windows lose, it keeps
  CostModel costs = even_costs();
  const auto taken = [&](double seconds_of_choosing) {
    costs.prefill.candidates[1].select.call = seconds_of_choosing;  // of both heads, in each call of 512 rows
    const Tuning t = tune(s, costs, 0.001, 512, 2).value();
    return t.table.methods[t.table.at(1, 1)[0]];
  };
  const double saved = 1e-9 * 512 * 1500 * 0.5;  // by one head, in a call of the last band's mean length
  EXPECT_EQ(taken(1.8 * saved), "sampleattention");
  EXPECT_EQ(taken(2.2 * saved), "dense");
  s.methods[1] = "xattention";
  EXPECT_EQ(taken(0.9 * saved), "xattention");
  EXPECT_EQ(taken(1.8 * saved), "dense");
}

TEST(Tune, LayersThatWereNotTriedAreDense) {
  TrialSums s = planted(0, 0);
  s.cells[2].rows = 5;  // band 2048, layer 0: too few
  const Tuning t = tune(s, even_costs(), 0.5, 512, 4).value();
  EXPECT_EQ(t.table.layers, 4);
  EXPECT_EQ(t.table.at(1, 0)[0], 0);
  EXPECT_NE(t.table.at(1, 1)[0], 0);
  EXPECT_EQ(t.table.at(0, 3)[1], 0);
}

TEST(Tune, LongPromptsAreHeldBack) {
  using Held = std::vector<bool>;
  EXPECT_EQ(held_back({100, 100}), (Held{false, true}));
  EXPECT_EQ(held_back({100, 900}), (Held{true, false})) << "the longest is tried";
  EXPECT_EQ(held_back({800, 800, 800, 200, 800, 800, 300}), (Held{false, true, false, false, false, false, false}))
      << "one of five long ones, and the rest of no text";
  const Held many = held_back(std::vector<std::size_t>(10, 500));
  EXPECT_EQ(std::count(many.begin(), many.end(), true), 3);
}

TEST(Tune, BandsAscendAndHoldTheLongestText) {
  EXPECT_EQ(tuning_bands(800), (std::vector<std::int64_t>{1024}));
  EXPECT_EQ(tuning_bands(5000), (std::vector<std::int64_t>{1024, 1536, 2048, 3072, 4096, 6144}));
  EXPECT_EQ(tuning_bands(8192).back(), 8192);
}

}  // namespace
}  // namespace lacuna
