// SPDX-License-Identifier: Apache-2.0
// A method spec is text from a command line, a variable or a request. Whatever is taken can be written out,
// and what is written out makes the same method. No file is read.
#include <fmt/format.h>

#include "engine/registry.h"
#include "fuzz/fuzz.h"

namespace lacuna::fuzz {
namespace {

std::string one(std::string_view text, const MakeOptions& how) {
  auto made = make_method(text, how);
  if (!made.ok()) return made.error().what.empty() ? fmt::format("'{}' is refused without a word", text) : "";
  const std::string written = canonical_spec(*made.value());
  auto again = make_method(written, how);
  if (!again.ok())
    return fmt::format("'{}' is taken, but what it is written out as is not: {}", text, again.error().what);
  if (canonical_spec(*again.value()) != written)
    return fmt::format("'{}' is written out as '{}', and that as '{}'", text, written, canonical_spec(*again.value()));
  if (how.lone_wrapper) return "";  // a wrapper without a base plans nothing
  for (const int layer : {0, 1, 4095}) (void)made.value()->side(layer);
  for (Method* m : chain_of(*made.value()))
    if (auto calibrator = make_calibrator(*m, how); !calibrator.ok() && calibrator.error().what.empty())
      return fmt::format("'{}' has no calibrator and says nothing", text);
  return "";
}

}  // namespace

std::string spec(Bytes bytes) {
  const std::string_view text = text_of(bytes);
  for (const std::string& part : split_methods(text))
    if (part.empty() || part.find(',') != std::string::npos) return "split_methods gives what is no method";
  for (const bool lone : {false, true})
    if (auto wrong = one(text, {.lone_wrapper = lone, .profiles = false}); !wrong.empty()) return wrong;
  return "";
}

}  // namespace lacuna::fuzz

LACUNA_FUZZ_TARGET(spec)
