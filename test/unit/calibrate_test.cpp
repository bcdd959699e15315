// SPDX-License-Identifier: Apache-2.0
// A session that feeds a calibrator: what it sees, its state, what comes of it. The method is this file's.
#include <gtest/gtest.h>

#include "block/calibrate/channel_mean.h"
#include "engine/registry.h"
#include "engine/session.h"
#include "support/problem.h"

namespace lacuna {
namespace method {
namespace {

using block::ChannelMean;

constexpr Card kWatched{.slug = "watched", .title = "Watched", .family = "test", .summary = "Has a calibrator."};
class Watched final : public Method {
 public:
  std::int64_t need = 200;
  std::string profile;
  const Card& card() const override { return kWatched; }
  void params(ParamVisitor& v) override {
    v(need, "need", 1, 1 << 20, "tokens needed");
    v(profile, "profile", "", "what it watches for");
  }
  Result<Plan> plan(const AttentionView&, Context&) const override {
    return plan_of(Window{.sink = 0, .window = 8});
  }
  std::unique_ptr<Calibrator> calibrator() const override;
};

class Watcher final : public Calibrator {
 public:
  explicit Watcher(std::int64_t need) : need_(need) {}
  Status observe(const AttentionView& x, Context&) override {
    return mean_.add(x.layer, {x.grid, x.hkv, x.dk, x.q, x.q_head, x.q_row, x.k});
  }
  nlohmann::json save() const override { return mean_.save(); }
  Status load(const nlohmann::json& state) override { return mean_.load(state); }
  Result<nlohmann::json> finish() const override {
    if (mean_.tokens() < need_)
      return bad_argument(fmt::format("text too short: got {} tokens, need {} or more", mean_.tokens(), need_));
    nlohmann::json order = nlohmann::json::array();
    for (int l = 0; l < mean_.layers(); ++l)
      for (int h = 0; h < mean_.heads(); ++h) order.push_back(mean_.order(l, h));
    return nlohmann::json{{"order", order}, {"tokens", mean_.tokens()}};
  }

 private:
  std::int64_t need_;
  ChannelMean mean_{ChannelMean::Of::product, ChannelMean::Per::kv_head};
};

std::unique_ptr<Calibrator> Watched::calibrator() const { return std::make_unique<Watcher>(need); }
LACUNA_METHOD(watched, Watched)

}  // namespace
}  // namespace method

namespace {

using testing::Output;
using testing::Problem;

struct Calibration {
  Session::Impl s;
  Calibration() {
    const MethodEntry entries[] = {method::method_entry_watched()};
    s.method = std::move(make_method("watched", {.methods = entries, .profiles = false}).value());
    s.calibrator = std::move(make_calibrator(*s.method).value());
    s.have = detect_features();
    s.own_pool = make_thread_pool(1);
    s.parallel = s.own_pool.get();
  }
  void read(const Problem& p, int begin, int end, int layers = 2, bool real = true) {
    for (int layer = 0; layer < layers; ++layer) {
      Output o(p.s.hq, end - begin, p.s.d);
      AttendCall c = testing::call_of(p, begin, end, end, o);
      c.layer = layer;
      c.counted = real;
      c.rope = {RopeLayout::interleaved, layer == 0 ? 500.0 : 10000.0};
      const auto done = s.attend(c);
      ASSERT_TRUE(done.ok()) << done.error().what;
    }
  }
};

const Problem& problem() {
  static const Problem p({4, 2, 300, 16, 1});
  return p;
}

TEST(Calibrate, SeesEveryTokenOnceWhateverTheChunksAndRunsDense) {
  Calibration whole, chunks;
  whole.read(problem(), 0, 300);
  EXPECT_EQ(whole.s.prefill.report.density(), 1.0) << "the method itself would keep a window of 8";
  chunks.read(problem(), 0, 2, 2, false);  // a warm-up counts for nothing
  for (int begin = 0; begin < 300; begin += 77) chunks.read(problem(), begin, std::min(begin + 77, 300));
  const auto a = nlohmann::json::parse(whole.s.finish_calibration().value()), b = nlohmann::json::parse(chunks.s.finish_calibration().value());
  EXPECT_EQ(a, b);
  EXPECT_EQ(a["data"]["tokens"], 300);
  EXPECT_EQ(a["data"]["order"].size(), 2u * 2u);
  EXPECT_EQ(a["params"], nlohmann::json({{"need", "200"}}));
  const nlohmann::json model = {{"name", ""}, {"n_layers", 2}, {"hq", 4}, {"hkv", 2}, {"dk", 16}, {"dv", 16},
                                {"rope", {{"layout", "interleaved"}, {"base", 10000.0}}}};
  EXPECT_EQ(a["model"], model);
}

TEST(Calibrate, GoesOnFromAState) {
  Calibration whole, before, after;
  whole.read(problem(), 0, 300);
  before.read(problem(), 0, 150);
  const auto state = before.s.calibration();
  ASSERT_TRUE(state.ok());
  ASSERT_TRUE(after.s.load_calibration(state.value()).ok());
  after.read(problem(), 150, 300);
  EXPECT_EQ(after.s.finish_calibration().value(), whole.s.finish_calibration().value());
}

TEST(Calibrate, SaysWhatIsMissing) {
  Calibration c;
  EXPECT_EQ(c.s.finish_calibration().error().what, "text too short: got 0 tokens, need 200 or more");
  c.read(problem(), 0, 120);
  EXPECT_EQ(c.s.finish_calibration().error().what, "text too short: got 120 tokens, need 200 or more");
  for (const char* bad : {"", "{}", "[[", R"({"model":{},"state":{}})", R"({"state":null})"})
    EXPECT_FALSE(c.s.load_calibration(bad).ok()) << bad;
  EXPECT_EQ(c.s.finish_calibration().error().what, "text too short: got 120 tokens, need 200 or more") << "a bad state changes nothing";
  c.s.calibrator = nullptr;
  EXPECT_NE(c.s.calibration().error().what.find("does not calibrate"), std::string::npos);
  AttendCall call;
  Output o(4, 1, 16);
  call = testing::call_of(problem(), 0, 1, 1, o);
  call.layer = -1;
  Calibration d;
  EXPECT_FALSE(d.s.attend(call).ok());
}

TEST(Calibrate, MethodsWithoutACalibratorNameThoseWithOne) {
  std::vector<MethodEntry> entries(all_methods().begin(), all_methods().end());
  const MakeOptions all = {.methods = entries};
  auto xattention = make_method("xattention", all);
  EXPECT_NE(make_calibrator(*xattention.value(), all).error().what.find("xattention has nothing to calibrate; methods that do: "), std::string::npos);
  entries.push_back(method::method_entry_watched());
  const std::string what = make_calibrator(*xattention.value(), {.methods = entries}).error().what;
  EXPECT_NE(what.find("watched"), std::string::npos) << what;
  Options o;
  o.method = "dense";
  o.calibrate = true;
  EXPECT_FALSE(Session::open(o).ok());
}

TEST(Calibrate, RawKeysAndValuesAreTheCaches) {
  // Values too, and a cache of halves: what a view reads is what the problem holds.
  struct Reader final : Calibrator {
    Status observe(const AttentionView& x, Context&) override {
      std::vector<float> row(16);
      for (int g = 0; g < 2; ++g)
        for (std::int64_t j = 0; j < x.grid.n_keys; ++j)
          for (const auto& [raw, from] : {std::pair{&x.k, &problem().k}, std::pair{&x.v, &problem().v}}) {
            raw->read(g, j, row.data());
            for (int d = 0; d < 16; ++d)
              EXPECT_EQ(row[static_cast<std::size_t>(d)], half_to_float((*from)[problem().at(g, static_cast<int>(j)) + static_cast<std::size_t>(d)]));
          }
      return {};
    }
    nlohmann::json save() const override { return {}; }
    Status load(const nlohmann::json&) override { return {}; }
    Result<nlohmann::json> finish() const override { return nlohmann::json(); }
  };
  Calibration c;
  c.s.calibrator = std::make_unique<Reader>();
  c.read(problem(), 0, 100, 1);
}

}  // namespace
}  // namespace lacuna
