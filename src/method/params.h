// SPDX-License-Identifier: Apache-2.0
// Parameters of a method, visited: one list gives default, parsing, ranges, help, docs and JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace lacuna {

class ParamVisitor {
 public:
  virtual ~ParamVisitor() = default;
  // Allowed: lo <= value <= hi. The unit stands in the help text.
  virtual void operator()(std::int64_t& value, std::string_view name, std::int64_t lo, std::int64_t hi,
                          std::string_view help) = 0;
  // Allowed: lo < value <= hi if open_low, else lo <= value <= hi.
  virtual void operator()(double& value, std::string_view name, double lo, double hi, std::string_view help,
                          bool open_low = false) = 0;
  virtual void operator()(bool& value, std::string_view name, std::string_view help) = 0;
  // Allowed: one of "a|b|c"; or anything, as for a path, if `allowed` is empty: the default is then empty
  // and means "none". No value holds ':', ',', '+' or white space, which have a meaning in specs.
  virtual void operator()(std::string& value, std::string_view name, std::string_view allowed,
                          std::string_view help) = 0;
};

}  // namespace lacuna
