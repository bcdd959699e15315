// SPDX-License-Identifier: Apache-2.0
// The cost model: what attention calls of one shape take on this machine, dense and by a method's two
// parts, choosing and attending. Measured once (engine/measure_cost.h), kept in a file, and asked
// before every call whether leaving something out can pay.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/machine.h"
#include "lacuna/dtype.h"
#include "lacuna/result.h"

namespace lacuna {

// What the seconds depend on beside rows and keys.
struct CallShape {
  int hq = 1, hkv = 1, dk = 0, dv = 0;
  Dtype k_type = Dtype::f16, v_type = Dtype::f16;
  Precision precision = Precision::fast;
  Features features = 0;
  int workers = 1;
  std::string kernel;  // forced, or empty
  bool operator==(const CallShape&) const = default;
  std::string text() const;  // one line
};

// Seconds of choosing for one layer's call: call + key * keys + pair * rows * keys.
struct SelectCost {
  double call = 0, key = 0, pair = 0;
  double seconds(double rows, double keys) const { return call + key * keys + pair * rows * keys; }
};

struct CandidateCost {
  std::string spec;
  SelectCost select;
  double pair = 0;  // attending: seconds per pair kept
};

// One phase. Pairs are of all query heads.
struct PhaseCost {
  double call = 0, pair = 0;  // dense: call + pair * pairs
  std::vector<CandidateCost> candidates;
  double dense(double pairs) const { return call + pair * pairs; }
  double sparse(std::size_t candidate, double rows, double keys, double pairs, double density) const {
    const CandidateCost& c = candidates[candidate];
    return c.select.seconds(rows, keys) + call + c.pair * pairs * density;
  }
  // The density at which a candidate costs what dense costs; 0 or less: choosing alone is dearer.
  double break_even(std::size_t candidate, double rows, double keys, double pairs) const {
    const CandidateCost& c = candidates[candidate];
    return c.pair * pairs > 0 ? (pair * pairs - c.select.seconds(rows, keys)) / (c.pair * pairs) : 0;
  }
};

struct CostModel {
  PhaseCost prefill, decode;
};

// The file for a shape and its candidates on this machine, below cache_dir(); "" without such a folder.
std::string cost_file(const CallShape& shape, const std::vector<std::string>& prefill, const std::vector<std::string>& decode);
std::string cost_text(const CostModel& costs, const CallShape& shape);
// Refuses another version, machine, shape or candidates, and numbers no machine has.
Result<CostModel> parse_costs(std::string_view text, const CallShape& shape, const std::vector<std::string>& prefill,
                              const std::vector<std::string>& decode);

}  // namespace lacuna
