// SPDX-License-Identifier: Apache-2.0
// Fuzz targets: each feeds bytes from anywhere to one entry of the library and answers with "", or with what
// the library did that it must not. Every answer to bad bytes is right but a crash, a sanitizer's report, or
// a contradiction. tools/fuzz.sh drives each by libFuzzer; replay_test.cpp drives all, in the ordinary build,
// over test/fuzz/corpus and seeded mutations of it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>

namespace lacuna::fuzz {

using Bytes = std::span<const std::uint8_t>;

std::string spec(Bytes bytes);
std::string options(Bytes bytes);
std::string profile(Bytes bytes);
std::string plan(Bytes bytes);
std::string samples(Bytes bytes);

inline std::string_view text_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

inline int or_abort(const std::string& wrong) {
  if (wrong.empty()) return 0;
  std::fprintf(stderr, "%s\n", wrong.c_str());
  std::abort();
}

}  // namespace lacuna::fuzz

// The name that libFuzzer calls, in its own programs alone: one program has room for one.
#ifdef LACUNA_FUZZ
#define LACUNA_FUZZ_TARGET(name)                                                      \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);  \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    return ::lacuna::fuzz::or_abort(::lacuna::fuzz::name({data, size}));              \
  }
#else
#define LACUNA_FUZZ_TARGET(name)
#endif
