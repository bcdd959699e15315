// SPDX-License-Identifier: Apache-2.0
// The spec language: splitting, values, wrappers around methods. The methods of the toy list below are
// this file's own.
#include "engine/registry.h"

#include <gtest/gtest.h>

#include <fmt/format.h>

#include "support/method_lab.h"

namespace lacuna {
namespace method {
namespace {

constexpr Card kPaths{.slug = "paths", .title = "Paths", .family = "test", .summary = "Takes texts."};
class Paths final : public Method {
 public:
  std::string file, kind = "q";
  const Card& card() const override { return kPaths; }
  void params(ParamVisitor& v) override {
    v(file, "file", "", "a file");
    v(kind, "kind", "q|k|qk", "which");
  }
  Result<Plan> plan(const AttentionView&, Context&) const override { return dense_plan("paths"); }
};

// Narrows a window: the plan of its base, changed.
constexpr Card kHalf{.slug = "half", .title = "Half", .family = "test", .summary = "Halves a window.", .small = "streamingllm+half"};
class Half final : public Wrapper {
 public:
  std::int64_t times = 1;
  const Card& card() const override { return kHalf; }
  void params(ParamVisitor& v) override { v(times, "times", 1, 8, "halvings"); }
  Status preset(std::string_view name) override {
    *this = Half();
    return Method::preset(name);
  }
  Status accepts(const Method& base) const override {
    if (base.card().slug == "dense") return unsupported("it has no window to halve");
    return {};
  }
  Result<Plan> plan(const AttentionView& x, Context& context) const override {
    auto plan = inner()->plan(x, context);
    if (!plan.ok()) return plan;
    if (auto* w = std::get_if<Window>(&plan.value().patterns[0])) w->window >>= times;
    return plan;
  }
};

LACUNA_METHOD(paths, Paths)
LACUNA_METHOD(half, Half)

}  // namespace
}  // namespace method

namespace {

MakeOptions with_toys() {
  static const std::vector<MethodEntry> entries = [] {
    std::vector<MethodEntry> all(all_methods().begin(), all_methods().end());
    all.push_back(method::method_entry_paths());
    all.push_back(method::method_entry_half());
    return all;
  }();
  return {.methods = entries};
}

std::string error_of(const char* spec) {
  auto made = make_method(spec, with_toys());
  return made.ok() ? "" : made.error().what;
}
void expect_error(const char* spec, std::initializer_list<const char*> parts) {
  const std::string what = error_of(spec);
  EXPECT_FALSE(what.empty()) << spec << " was taken";
  for (const char* part : parts) EXPECT_NE(what.find(part), std::string::npos) << spec << ": '" << what << "' has no " << part;
}

TEST(Spec, TextsAreTakenAndWrittenOut) {
  auto m = make_method("paths:file=/a/b.json:kind=qk", with_toys());
  ASSERT_TRUE(m.ok()) << m.error().what;
  EXPECT_EQ(canonical_spec(*m.value()), "paths:file=/a/b.json:kind=qk");
  EXPECT_EQ(describe_params(*m.value())[1].range, "q|k|qk");
  auto none = make_method("paths", with_toys());
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(canonical_spec(*none.value()), "paths:kind=q") << "an empty text is left out: 'file=' would be no spec";
}

TEST(Spec, TextsSayWhatTheyMayNotHoldAndHowToMendIt) {
  for (const char* spec : {"paths:file=/a,b", "paths:file=/a b", "paths:file=/a\tb", "paths:file=/a:b", "paths:file=/a+b.json"})
    expect_error(spec, {"':', ',', '+' or white space", "link or rename"});
  expect_error("paths:kind=v", {"paths.kind", "'v'", "q|k|qk"});
  expect_error("paths:kind=q|k", {"paths.kind"});
}

TEST(Spec, AWrapperChangesThePlanOfItsBase) {
  auto m = make_method("streamingllm:sink=4:window=64+half:times=2", with_toys());
  ASSERT_TRUE(m.ok()) << m.error().what;
  test::MethodLab lab(2, 1, 256, 16);
  auto plan = lab.plan(*m.value(), 0, 256);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(std::get<Window>(plan.value().pattern()).window, 16);
}

TEST(Spec, TwilightStandsBehindABase) {
  for (const char* spec : {"twilight", "twilight:mass=0.5", "dense+twilight+twilight", "dense+twilight:mass=0"}) {
    auto m = make_method(spec);
    ASSERT_FALSE(m.ok()) << spec;
    EXPECT_NE(m.error().what.find("twilight"), std::string::npos) << m.error().what;
  }
  EXPECT_TRUE(make_method("quest:budget=256+twilight:mass=0.9").ok());
}

TEST(Spec, CanonicalSpecsOfWrappersMakeTheSameMethod) {
  for (const char* spec : {"streamingllm+half", "streamingllm:window=99+half:times=3", "xattention+half+half:times=2",
                           "streamingllm+half:preset=auto"}) {
    auto m = make_method(spec, with_toys());
    ASSERT_TRUE(m.ok()) << m.error().what;
    const std::string text = canonical_spec(*m.value());
    auto again = make_method(text, with_toys());
    ASSERT_TRUE(again.ok()) << text << ": " << again.error().what;
    EXPECT_EQ(canonical_spec(*again.value()), text);
  }
  auto m = make_method("streamingllm+half:times=3", with_toys());
  const auto chain = chain_of(*m.value());
  ASSERT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[0]->card().slug, "streamingllm");
  EXPECT_EQ(chain[1]->card().slug, "half");
}

TEST(Spec, WrappersAreRefusedWithAReason) {
  expect_error("half", {"half is a wrapper", "METHOD+half"});
  expect_error("half+streamingllm", {"half is a wrapper"});
  expect_error("dense+half", {"half cannot wrap dense", "no window"});
  expect_error("dense+streamingllm", {"streamingllm cannot wrap dense", "comma"});
  expect_error("streamingllm+hafl", {"unknown wrapper 'hafl'", "did you mean 'half'"});
  expect_error("streamingllm+half:times=9", {"half.times", "9", "1..8"});
  expect_error("streamingllm+", {"a method name is missing"});
  auto lone = make_method("half:times=2", {.methods = with_toys().methods, .lone_wrapper = true});
  ASSERT_TRUE(lone.ok());
  EXPECT_EQ(canonical_spec(*lone.value()), "half:times=2");
}

TEST(Spec, EntriesSayWhichAreWrappers) {
  EXPECT_TRUE(method::method_entry_half().wraps);
  EXPECT_FALSE(method::method_entry_paths().wraps);
}

}  // namespace
}  // namespace lacuna
