// SPDX-License-Identifier: Apache-2.0
// A new run of bench beside a saved one, case by case: lacuna bench --against FILE.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/bench/ratio.h"
#include "cli/bench/saved.h"

namespace lacuna::cli {

// Times of another machine are compared too, but nothing is called faster or slower then: who knows which of the two,
// the program or the machine, is to blame.
class Against {
 public:
  explicit Against(SavedRun then);

  bool same_machine() const { return same_machine_; }
  // What to say before the first case: which run it is, and whether the machine is another.
  std::string heading() const;
  // Finds the saved case of the same line and figure and compares; the line to print below the case's own.
  std::string add(const CaseRounds& now);
  // The same as JSON, of the case just added; null if it has no saved one.
  const nlohmann::ordered_json& last() const { return last_; }
  // The geometric mean of the ratios, how many cases went which way, and those that only one side has.
  std::string summary() const;
  nlohmann::ordered_json as_json() const;
  // How many cases are slower beyond their spread and take more than `limit` times as long.
  int above(double limit) const;

 private:
  int count(Verdict verdict) const;
  double geometric_mean() const;
  std::vector<std::string> only_there() const;

  SavedRun then_;
  bool same_machine_;
  std::vector<bool> used_;              // of then_.cases
  std::vector<std::string> only_here_;  // lines
  std::vector<Ratio> ratios_;
  nlohmann::ordered_json last_;
};

}  // namespace lacuna::cli
