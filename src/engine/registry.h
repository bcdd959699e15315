// SPDX-License-Identifier: Apache-2.0
// The registry: every method of method/list.inc, and the spec language that names one:
//   slug[:key=value]*[+wrapper[:key=value]*]      a comma separates methods and nothing else
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lacuna/result.h"
#include "method/calibrator.h"
#include "method/method.h"
#include "method/profile.h"

namespace lacuna {

std::span<const MethodEntry> all_methods();

struct SpecPart {
  std::string slug;
  std::vector<std::pair<std::string, std::string>> values;
};
// One method spec, split but not yet understood: the method itself and its wrappers, in order.
Result<std::vector<SpecPart>> parse_spec(std::string_view spec);
// "a:x=1,b" -> {"a:x=1", "b"}
std::vector<std::string> split_methods(std::string_view specs);

struct MakeOptions {
  std::span<const MethodEntry> methods = all_methods();  // what names mean; tests add their own
  bool lone_wrapper = false;  // take a wrapper without a base, to look at its card and parameters
  bool profiles = true;       // read and use the files of profile=PATH; false: to look, or to make one
};
// A configured method, its wrappers around it, or an error that names the nearest thing that exists.
Result<std::unique_ptr<Method>> make_method(std::string_view spec, const MakeOptions& options = {});
// The spec of the method that a profile is for: "SLUG:profile=PATH". An error if it cannot be read.
Result<std::string> spec_of_profile(const std::string& path);
// The method's calibrator, or an error that names the methods which have one.
Result<std::unique_ptr<Calibrator>> make_calibrator(const Method& method, const MakeOptions& options = {});
// The method and what it wraps, the base first: in the order of the spec.
std::vector<Method*> chain_of(Method& method);
// The spec that makes the same method, every parameter written out (but empty ones).
std::string canonical_spec(Method& method);

struct ParamInfo {
  std::string name, value, range, help;
};
std::vector<ParamInfo> describe_params(Method& method);  // its own, not those of what it wraps

}  // namespace lacuna
