// SPDX-License-Identifier: Apache-2.0
// From profile=PATH in a spec to a session that holds the profile's model against the calls it gets.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "engine/registry.h"
#include "engine/session.h"
#include "support/problem.h"

namespace lacuna {
namespace method {
namespace {

// A window whose width a profile says.
constexpr Card kListed{.slug = "listed", .title = "Listed", .family = "test", .summary = "A window from a profile.", .needs_profile = true};
class Listed final : public Method {
 public:
  std::string profile;
  std::int64_t window = 0;
  const Card& card() const override { return kListed; }
  void params(ParamVisitor& v) override { v(profile, "profile", "", "from lacuna calibrate"); }
  Status use(const Profile& p) override {
    auto at = member(p.data, "data", "window");
    if (!at.ok()) return at.error();
    auto x = as_int(*at.value(), "data.window", 1, 1000);
    if (!x.ok()) return x.error();
    window = x.value();
    return {};
  }
  Result<Plan> plan(const AttentionView&, Context&) const override {
    return plan_of(Window{.sink = 0, .window = window});
  }
};
LACUNA_METHOD(listed, Listed)

}  // namespace
}  // namespace method

namespace {

using testing::Output;
using testing::Problem;

class ProfileUse : public ::testing::Test {
 protected:
  const std::string path_ = (std::filesystem::temp_directory_path() / fmt::format("lacuna-use-{}.json", getpid())).string();
  Profile profile_;
  const Problem problem_{{4, 2, 300, 16, 1}};
  const std::vector<MethodEntry> entries_ = {method::method_entry_listed()};

  void SetUp() override {
    profile_.slug = "listed";
    profile_.model = {"Toy", 3, 4, 2, 16, 16, {RopeLayout::interleaved, 10000}};
    profile_.data = {{"window", 40}};
  }
  void TearDown() override { std::filesystem::remove(path_); }
  Result<std::unique_ptr<Method>> make() {
    EXPECT_TRUE(write_profile(profile_, path_).ok());
    return make_method("listed:profile=" + path_, {.methods = entries_});
  }
  void open(Session::Impl& s) {
    auto made = make();
    ASSERT_TRUE(made.ok()) << made.error().what;
    s.method = std::move(made.value());
    s.have = detect_features();
    s.own_pool = make_thread_pool(1);
    s.parallel = s.own_pool.get();
  }
  // The density so far after one more call.
  double attend(Session::Impl& s, int layer, Rope rope = {}) {
    Output o(4, 300, 16);
    AttendCall c = testing::call_of(problem_, 0, 300, 300, o);
    c.layer = layer;
    c.rope = rope;
    s.prefill = {};
    const auto done = s.attend(c);
    EXPECT_TRUE(done.ok()) << done.error().what;
    return s.prefill.report.density();
  }
};

TEST_F(ProfileUse, IsNeededReadAndRemembered) {
  auto none = make_method("listed", {.methods = entries_});
  ASSERT_FALSE(none.ok());
  for (const char* part : {"listed needs a profile", "lacuna calibrate listed", "listed:profile=FILE"})
    EXPECT_NE(none.error().what.find(part), std::string::npos) << none.error().what;
  EXPECT_TRUE(make_method("listed", {.methods = entries_, .profiles = false}).ok()) << "to make one, none is needed";
  auto made = make();
  ASSERT_TRUE(made.ok()) << made.error().what;
  ASSERT_NE(made.value()->calibrated_for(), nullptr);
  EXPECT_EQ(made.value()->calibrated_for()->name, "Toy");
  EXPECT_EQ(canonical_spec(*made.value()), "listed:profile=" + path_);
}

TEST_F(ProfileUse, ErrorsNameMethodFilePlaceAndMend) {
  const auto refused = [&](std::initializer_list<std::string> parts) {
    auto made = make();
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().code, ErrorCode::bad_file);
    for (const std::string& part : parts) EXPECT_NE(made.error().what.find(part), std::string::npos) << made.error().what;
  };
  profile_.slug = "other";
  refused({"listed.profile: " + path_, "got 'other', need 'listed'", "lacuna calibrate listed"});
  SetUp();
  profile_.data = {{"window", 4000}};
  refused({"listed.profile: " + path_, "data.window: got 4000", "1..1000"});
  profile_.data = {{"windw", 4}};
  refused({"data.window: is missing"});
  auto gone = make_method("listed:profile=/no/such/file", {.methods = entries_});
  ASSERT_FALSE(gone.ok());
  EXPECT_NE(gone.error().what.find("/no/such/file: is not there"), std::string::npos);
}

TEST_F(ProfileUse, AFittingModelIsSparse) {
  Session::Impl s;
  open(s);
  for (int pass = 0; pass < 2; ++pass)
    for (int layer = 0; layer < 3; ++layer) {
      // Layers with a window of the model's own rotate by another base: one that fits is enough.
      EXPECT_LT(attend(s, layer, {RopeLayout::interleaved, layer == 0 ? 500 : 10000.0}), 0.5);
      EXPECT_EQ(s.unfit, "");
    }
}

TEST_F(ProfileUse, AnotherModelIsDenseAndSaysWhy) {
  const auto unfit = [&](std::initializer_list<const char*> parts, Rope rope = {}, int layers = 1) {
    Session::Impl s;
    open(s);
    double density = 0;
    for (int pass = 0; pass < 2; ++pass)
      for (int layer = 0; layer < layers; ++layer) density = attend(s, layer, rope);
    EXPECT_EQ(density, 1.0);
    EXPECT_EQ(s.note, s.unfit);
    for (const char* part : parts) EXPECT_NE(s.unfit.find(part), std::string::npos) << s.unfit << " has no " << part;
  };
  profile_.model.hq = 8;
  profile_.model.dk = 32;
  unfit({"listed.profile", "hq: got 4, need 8", "dk: got 16, need 32", "lacuna calibrate"});
  SetUp();
  unfit({"n_layers: got 4, need 3"}, {}, 4);
  unfit({"rope.layout: got half-split, need interleaved"}, {RopeLayout::half_split, 10000});
  unfit({"rope.base: got 500, need 10000"}, {RopeLayout::interleaved, 500});
}

}  // namespace
}  // namespace lacuna
