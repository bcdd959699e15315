// SPDX-License-Identifier: Apache-2.0
#include "method/profile.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include <fmt/format.h>

namespace lacuna {
namespace {

namespace fs = std::filesystem;

Profile sample() {
  Profile p;
  p.slug = "double-sparsity";
  p.model = {"Small 1B", 16, 8, 2, 64, 64, {RopeLayout::interleaved, 10000}};
  p.params = {{"channel", "k"}};
  p.texts = {{"tokens", 4096}};
  p.data = {{"channels", {{0, 2, 1}, {2, 1, 0}}}, {"theta", 0.5}};
  return p;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / fmt::format("lacuna-profile-{}", getpid());
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string file(const char* name) const { return (path / name).string(); }
};

TEST(Profile, ComesBackAsItWasWritten) {
  const Folder folder;
  const std::string path = folder.file("p.json");
  ASSERT_TRUE(write_profile(sample(), path).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), {}), 1) << "nothing is left beside it";
  const auto back = read_profile(path);
  ASSERT_TRUE(back.ok()) << back.error().what;
  EXPECT_EQ(profile_text(back.value()), profile_text(sample()));
  EXPECT_TRUE(differences(back.value().model, sample().model).empty());
}

TEST(Profile, AFailedWriteLeavesTheOldOne) {
  const Folder folder;
  EXPECT_FALSE(write_profile(sample(), folder.file("no/such/folder.json")).ok());
  Profile large = sample();
  large.data["x"] = std::string(kMostProfileBytes, 'x');
  const std::string path = folder.file("p.json");
  ASSERT_TRUE(write_profile(sample(), path).ok());
  EXPECT_FALSE(write_profile(large, path).ok());
  EXPECT_TRUE(read_profile(path).ok());
}

// The sample's JSON with one thing changed.
std::string changed(const std::function<void(nlohmann::json&)>& change) {
  auto j = nlohmann::json::parse(profile_text(sample()));
  change(j);
  return j.dump();
}

void expect_refused(const std::string& text, std::initializer_list<const char*> parts) {
  const auto p = parse_profile(text);
  ASSERT_FALSE(p.ok()) << text.substr(0, 200);
  for (const char* part : parts) EXPECT_NE(p.error().what.find(part), std::string::npos) << p.error().what << " has no " << part;
}

TEST(Profile, SaysWhatIsWrong) {
  using J = nlohmann::json;
  expect_refused("", {"no JSON"});
  expect_refused("{\"format\":", {"no JSON"});
  expect_refused("[]", {"lacuna calibrate"});
  expect_refused(std::string(1000, '[') + std::string(1000, ']'), {"16 levels"});
  expect_refused(changed([](J& j) { j["format"] = "other"; }), {"format", "lacuna-profile"});
  expect_refused(changed([](J& j) { j["version"] = 2; }), {"version: got 2", "need 1", "make it again"});
  expect_refused(changed([](J& j) { j["version"] = "1"; }), {"version"});
  expect_refused(changed([](J& j) { j.erase("slug"); }), {"slug", "missing"});
  expect_refused(changed([](J& j) { j["slug"] = std::string(65, 'x'); }), {"slug", "64"});
  expect_refused(changed([](J& j) { j["parms"] = 1; }), {"'parms'", "did you mean 'params'"});
  expect_refused(changed([](J& j) { j["tensors"] = "x.safetensors"; }), {"tensors", "nothing"});
  expect_refused(changed([](J& j) { j["data"] = J::array(); }), {"data", "an object"});
  expect_refused(changed([](J& j) { j["model"]["hq"] = 0; }), {"model.hq", "got 0", "1..4096"});
  expect_refused(changed([](J& j) { j["model"]["hq"] = 1e30; }), {"model.hq"});
  expect_refused(changed([](J& j) { j["model"]["hq"] = 18446744073709551615u; }), {"model.hq"});
  expect_refused(changed([](J& j) { j["model"]["hq"] = 7; }), {"hq 7 and hkv 2", "multiple"});
  expect_refused(changed([](J& j) { j["model"]["dv"] = 2.5; }), {"model.dv", "whole number"});
  expect_refused(changed([](J& j) { j["model"].erase("dk"); }), {"model.dk", "missing"});
  expect_refused(changed([](J& j) { j["model"]["rope"]["layout"] = "neox"; }), {"rope.layout", "neox", "half-split"});
  expect_refused(changed([](J& j) { j["model"]["rope"]["layout"] = "unknown"; }), {"rope.layout"});
  expect_refused(changed([](J& j) { j["model"]["rope"]["base"] = -1; }), {"rope.base", "-1"});
  expect_refused(changed([](J& j) { j["model"]["rope"]["base"] = nullptr; }), {"rope.base", "null"});
}

TEST(Profile, FilesThatAreNone) {
  const Folder folder;
  const auto why = [](const std::string& path) {
    const auto p = read_profile(path);
    return p.ok() ? std::string() : p.error().what;
  };
  EXPECT_NE(why(folder.file("none")).find("is not there"), std::string::npos);
  EXPECT_NE(why(folder.path.string()).find("is no file"), std::string::npos);
  EXPECT_NE(why("/dev/zero").find("is no file"), std::string::npos);
  fs::resize_file((std::ofstream(folder.file("large")), folder.file("large")), kMostProfileBytes + 1);
  EXPECT_NE(why(folder.file("large")).find("larger than"), std::string::npos);
}

TEST(Profile, ReadersNameThePlace) {
  const nlohmann::json data = {{"list", {2, 0, 1}}, {"twice", {0, 1, 1}}, {"theta", {0.5, -0.5}}};
  const auto order = as_permutation(data["list"], "data.list", 3);
  ASSERT_TRUE(order.ok());
  EXPECT_EQ(order.value(), (std::vector<std::int32_t>{2, 0, 1}));
  EXPECT_NE(as_permutation(data["twice"], "data.twice", 3).error().what.find("data.twice: 1 stands in it twice"), std::string::npos);
  EXPECT_NE(as_permutation(data["list"], "data.list", 4).error().what.find("a list of 3, need a list of 4"), std::string::npos);
  EXPECT_NE(as_ints(data["list"], "data.list", 3, 0, 1).error().what.find("data.list[0]: got 2"), std::string::npos);
  EXPECT_NE(as_numbers(data["theta"], "data.theta", 2, 0, 1).error().what.find("data.theta[1]: got -0.5"), std::string::npos);
  EXPECT_NE(member(data, "data", "gates").error().what.find("data.gates: is missing"), std::string::npos);
}

TEST(Profile, EveryFieldOfAnotherModelIsNamed) {
  ModelFacts here = sample().model;
  EXPECT_TRUE(check_model(sample().model, here).ok());
  EXPECT_TRUE(check_model(sample().model, {}).ok()) << "what is unknown does not differ";
  here = {"Other", 17, 9, 3, 65, 66, {RopeLayout::half_split, 500000}};
  const std::string what = check_model(sample().model, here).error().what;
  for (const char* part : {"name: got 'Other', need 'Small 1B'", "n_layers: got 17, need 16", "hq: got 9, need 8", "hkv: got 3, need 2",
                           "dk: got 65, need 64", "dv: got 66, need 64", "rope.layout: got half-split, need interleaved",
                           "rope.base: got 500000, need 10000", "lacuna calibrate"})
    EXPECT_NE(what.find(part), std::string::npos) << what << " has no " << part;
}

}  // namespace
}  // namespace lacuna
