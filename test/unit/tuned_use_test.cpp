// SPDX-License-Identifier: Apache-2.0
// tuned with a small profile: each head is sent its own way, the laws of methods hold, and bad profiles are named.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include <fmt/format.h>

#include "engine/registry.h"
#include "method/tuned_table.h"
#include "support/method_lab.h"
#include "support/problem.h"

namespace lacuna {
namespace {

using testing::Output;
using testing::Problem;

class TunedUse : public ::testing::Test {
 protected:
  const std::string path_ = (std::filesystem::temp_directory_path() / fmt::format("lacuna-tuned-{}.json", getpid())).string();
  const std::string spec_ = "tuned:profile=" + path_;
  TunedTable table_;

  void SetUp() override {
    table_.methods = {"dense", "streamingllm:sink=4:window=50", "streamingllm:sink=32:window=100", "xattention:mass=0.5:block=64"};
    table_.bands = {300, 700};
    table_.layers = 2;
    table_.heads = 4;
    table_.choice = {{1, 1, 2, 0}, {}, {1, 0, 3, 2}, {2, 2, 2, 2}};
    write(as_json(table_));
  }
  void TearDown() override { std::filesystem::remove(path_); }
  void write(const nlohmann::json& data) {
    Profile p;
    p.slug = "tuned";
    p.model = {"Toy", 2, 4, 2, 16, 16, {RopeLayout::interleaved, 10000}};
    p.data = data;
    ASSERT_TRUE(write_profile(p, path_).ok());
  }
  std::unique_ptr<Method> make() {
    auto made = make_method(spec_);
    EXPECT_TRUE(made.ok()) << made.error().what;
    return std::move(made.value());
  }
};

// The plan of one method of the table, made alone.
void expect_as(test::MethodLab& lab, const Plan& joined, std::int32_t head, const std::string& spec, std::int64_t begin, std::int64_t end) {
  const Plan wanted = lab.plan(*make_method(spec).value(), begin, end).value();
  const Grid g{4, static_cast<std::int32_t>(end - begin), end, begin};
  for (std::int32_t i = 0; i < g.n_rows; i += 5)
    for (std::int64_t j = 0; j <= begin + i; ++j)
      ASSERT_EQ(test::keeps(joined, g, head, i, j), test::keeps(wanted, g, head, i, j)) << spec << " head " << head << " row " << i << " key " << j;
}

TEST_F(TunedUse, SendsEachHeadItsOwnWayByBandAndLayer) {
  test::MethodLab lab(4, 2, 800, 16);
  const auto method = make();
  const auto plan = [&](std::int64_t begin, std::int64_t end, int layer) { return lab.plan(*method, begin, end, layer).value(); };
  for (const auto& [begin, end, band] : {std::tuple{0, 256, 0}, {256, 512, 1}})
    for (std::int32_t h = 0; h < 4; ++h)
      expect_as(lab, plan(begin, end, 0), h, table_.methods[table_.at(static_cast<std::size_t>(band), 0)[static_cast<std::size_t>(h)]], begin, end);
  EXPECT_TRUE(is_dense(plan(0, 256, 1)));
  EXPECT_FALSE(is_dense(plan(256, 512, 1)));
  const Plan beyond = plan(512, 800, 0);
  EXPECT_TRUE(is_dense(beyond));
  EXPECT_NE(beyond.why.find("beyond 700 keys"), std::string::npos);
  EXPECT_TRUE(is_dense(plan(256, 512, 2))) << "a layer the table does not have";
}

// Specs that keep more or less of one estimate: it is made once, and each head keeps what its own spec keeps alone.
TEST_F(TunedUse, HeadsKeepMoreOrLessOfOneEstimate) {
  const std::string common = ":block=16:last_rows=16:segment=128";
  table_.methods = {"dense", "sampleattention:mass=0.6:slash_mass=0.6" + common, "streamingllm:sink=4:window=50",
                    "sampleattention:mass=0.2:slash_mass=0.4" + common, "sampleattention:mass=0.6:slash_mass=0.6:block=16:last_rows=32:segment=128"};
  table_.choice = {{1, 2, 3, 1}, {}, {0, 3, 2, 1}, {1, 2, 3, 4}};
  write(as_json(table_));
  test::MethodLab lab(4, 2, 800, 16);
  const auto method = make();
  for (const auto& [begin, end, band, layer] : {std::tuple{0, 256, 0, 0}, {256, 512, 1, 0}, {256, 520, 1, 1}}) {
    const Plan p = lab.plan(*method, begin, end, layer).value();
    for (std::int32_t h = 0; h < 4; ++h)
      expect_as(lab, p, h, table_.methods[table_.at(static_cast<std::size_t>(band), layer)[static_cast<std::size_t>(h)]], begin, end);
    if (layer == 0) EXPECT_EQ(p.patterns.size(), 2u) << "a window, and one map for all who share the estimate";
    else EXPECT_EQ(p.patterns.size(), 3u) << "another sample is another estimate";
  }
}

TEST_F(TunedUse, ADecodedRowSharesTheWidestWindowOfAGroup) {
  test::MethodLab lab(4, 2, 800, 16);
  const Plan p = lab.plan(*make(), 255, 256).value();
  EXPECT_EQ(p.route(0), p.route(1));
  EXPECT_EQ(p.route(2), kRouteFull) << "its neighbour is dense";
  EXPECT_EQ(p.route(3), kRouteFull);
}

// The laws "kept", "repeat" and "chunks" of docs/laws.md, on what the profile says.
TEST_F(TunedUse, ASessionComputesWhatThePlanKeepsAndRepeatsItsBits) {
  const Problem p({4, 2, 600, 16, 3});
  Output got(4, 600, 16), again(4, 600, 16);
  for (Output* o : {&got, &again}) {
    auto session = testing::open(spec_);
    ASSERT_TRUE(session.ok());
    ASSERT_TRUE(session.value()->attend(testing::call_of(p, 0, 600, 600, *o)).ok());
    EXPECT_EQ(session.value()->unfit(), "");
    EXPECT_LT(session.value()->report().prefill.density(), 0.8);
  }
  EXPECT_EQ(got.out, again.out);
  Output to(4, 600, 16);
  const auto wanted = testing::kept_attention(spec_, testing::call_of(p, 0, 600, 600, to));
  ASSERT_TRUE(wanted.ok());
  for (std::size_t i = 0; i < got.out.size(); ++i) ASSERT_NEAR(got.out[i], wanted.value().out[i], 3e-5) << i;
}

TEST_F(TunedUse, TheTableComesBackAsItWasWritten) {
  const TunedTable read = tuned_table(read_profile(path_).value()).value();
  EXPECT_EQ(read.methods, table_.methods);
  EXPECT_EQ(read.bands, table_.bands);
  EXPECT_EQ(read.choice, table_.choice);
  EXPECT_EQ(read.heads, 4);
}

TEST_F(TunedUse, AProfileAloneNamesItsMethod) {
  const auto alone = parse_options("profile=" + path_ + " audit=full");
  ASSERT_TRUE(alone.ok()) << alone.error().what;
  EXPECT_EQ(alone.value().method, spec_);
  EXPECT_EQ(alone.value().audit, Audit::full);
  for (const auto& [text, part] : {std::pair{"xattention profile=" + path_, "beside method 'xattention'"},
                                   {"profile=" + path_ + " xattention", "after method 'tuned"},
                                   {std::string("profile=/no/such/file"), "/no/such/file: is not there"}}) {
    const auto refused = parse_options(text);
    ASSERT_FALSE(refused.ok()) << text;
    EXPECT_NE(refused.error().what.find(part), std::string::npos) << refused.error().what;
  }
}

TEST_F(TunedUse, BadProfilesAreNamed) {
  const auto refused = [&](const char* place, nlohmann::json value, const std::string& part) {
    nlohmann::json data = as_json(table_);
    data[nlohmann::json::json_pointer(place)] = std::move(value);
    write(data);
    const auto made = make_method(spec_);
    ASSERT_FALSE(made.ok()) << place;
    EXPECT_NE(made.error().what.find(path_), std::string::npos) << made.error().what;
    EXPECT_NE(made.error().what.find(part), std::string::npos) << made.error().what;
  };
  refused("/methods", {"xattention"}, "the first of them dense");
  refused("/methods/1", "streamingl", "did you mean 'streamingllm'");
  refused("/methods/1", "auto", "plan by themselves");
  refused("/methods/1", "tuned", "plan by themselves");
  refused("/methods/1", "dense+twilight", "plan by themselves");
  refused("/methods/1", "minference:profile=/etc/passwd", "plan by themselves");
  refused("/methods/1", "streamingllm:window=-4", "streamingllm.window");
  refused("/bands", {700, 300}, "data.bands: lengths must ascend");
  refused("/bands", {300, 700, 900}, "data.choice: got a list of 2, need a list of 3");
  refused("/choice/1", {nullptr}, "data.choice[1]");
  refused("/choice/1/0", {1, 2}, "data.choice[1][0]");
  refused("/choice/1/0/2", 4, "data.choice[1][0][2]: got 4, need a whole number, 0..3");
}

}  // namespace
}  // namespace lacuna
