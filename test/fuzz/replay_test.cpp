// SPDX-License-Identifier: Apache-2.0
// The fuzz targets without a fuzzer: every file of the corpus, and seeded mutations of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "base/rng.h"
#include "fuzz/fuzz.h"
#include "support/pairwise.h"
#include "support/thin.h"

namespace lacuna::fuzz {
namespace {

using File = std::vector<std::uint8_t>;

struct Target {
  const char* name;
  std::string (*run)(Bytes);
  int mutations;
};
[[maybe_unused]] void PrintTo(const Target& t, std::ostream* out) { *out << t.name; }  // found by gtest
constexpr Target kTargets[] = {
    {"spec", spec, 20000}, {"options", options, 10000}, {"profile", profile, 10000}, {"plan", plan, 8000},
    {"samples", samples, 10000}};

std::vector<File> corpus_of(const char* target) {
  std::vector<std::filesystem::path> paths;
  for (const auto& e :
       std::filesystem::directory_iterator(fmt::format("{}/test/fuzz/corpus/{}", LACUNA_SOURCE_DIR, target)))
    paths.push_back(e.path());
  std::sort(paths.begin(), paths.end());
  std::vector<File> files;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return files;
}

// One to six small changes.
File mutated(const std::vector<File>& corpus, Rng& rng) {
  File x = corpus[rng.below(corpus.size())];
  const auto place = [&] { return static_cast<std::ptrdiff_t>(rng.below(x.size() + 1)); };
  for (std::uint64_t n = 1 + rng.below(6); n > 0; --n) {
    const std::ptrdiff_t at = place();
    const auto byte = static_cast<std::uint8_t>(rng.below(256));
    switch (rng.below(6)) {
      case 0:
        x.insert(x.begin() + at, byte);
        break;
      case 1:
        x.insert(x.begin() + at, static_cast<std::size_t>(rng.below(40)), byte);
        break;
      case 2:
        x.erase(x.begin() + at, x.begin() + std::min(at + static_cast<std::ptrdiff_t>(rng.below(8)),
                                                     static_cast<std::ptrdiff_t>(x.size())));
        break;
      case 3: {  // a piece of another file
        const File& other = corpus[rng.below(corpus.size())];
        const std::uint64_t from = rng.below(other.size() + 1),
                            count = rng.below(std::min<std::uint64_t>(other.size() - from, 60) + 1);
        x.insert(x.begin() + at, other.begin() + static_cast<std::ptrdiff_t>(from),
                 other.begin() + static_cast<std::ptrdiff_t>(from + count));
        break;
      }
      case 4:
        if (!x.empty()) x[rng.below(x.size())] = byte;
        break;
      default:
        if (!x.empty()) x[rng.below(x.size())] ^= static_cast<std::uint8_t>(1u << rng.below(8));
    }
  }
  return x;
}

class Fuzz : public ::testing::TestWithParam<Target> {};

TEST_P(Fuzz, Corpus) {
  const auto corpus = corpus_of(GetParam().name);
  ASSERT_FALSE(corpus.empty());
  for (const File& file : corpus) EXPECT_EQ(GetParam().run(file), "") << "a file of " << file.size() << " bytes";
}

TEST_P(Fuzz, Mutations) {
  const auto corpus = corpus_of(GetParam().name);
  ASSERT_FALSE(corpus.empty());
  const char* only = std::getenv("LACUNA_CASE");
  for (int i = 0; i < GetParam().mutations / test::kThin; ++i) {
    if (only && std::atoi(only) != i) continue;
    Rng rng(test::seed_shift() + static_cast<std::uint64_t>(i) * 977 + 1);
    ASSERT_EQ(GetParam().run(mutated(corpus, rng)), "")
        << "again: LACUNA_SEED=" << test::seed_shift() / 100000 << " LACUNA_CASE=" << i
        << " lacuna-tests --gtest_filter=*Fuzz.Mutations/" << GetParam().name;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, Fuzz, ::testing::ValuesIn(kTargets),
                         [](const ::testing::TestParamInfo<Target>& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace lacuna::fuzz
