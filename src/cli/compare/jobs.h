// SPDX-License-Identifier: Apache-2.0
// The runs of compare as a user sees them: each a process of its own, so that peak memory is its own and a crash ends
// nothing else; how long it has been at it, and how long the rest will take.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/compare/child.h"
#include "cli/run/options.h"
#include "cli/time_left.h"

namespace lacuna::cli {

class Jobs {
 public:
  // All jobs are planned before the first runs, in their order; a job of `kind` reads so many tokens.
  void plan(const std::string& kind, double tokens) { left_.plan(kind, tokens); }
  // Runs the next job: `arguments` (a verb and what only it takes) with those of `o`. `detail` makes words of what the
  // child has written so far ("2 of 5 samples").
  ChildResult run(std::vector<std::string> arguments, const RunOptions& o, const std::string& label,
                  const std::function<std::string(const std::string& out)>& detail = {});
  // A line on stderr that stays: what came of a job.
  void say(const std::string& label, const std::string& what) const;

 private:
  TimeLeft left_;
};

// What a child came to, with `state` and `error`; `json`: its figures, if it wrote any.
nlohmann::ordered_json run_of(const ChildResult& child, const std::string& json, const std::string& method);

// A job that reads a prompt with stock and all methods: adds kl_mean and same_top_share to the runs of a length that
// are done, and the length's floor, or kl_error. `at`: words behind a method's name, e.g. " at 8k".
void add_kl(Jobs& jobs, const RunOptions& o, const std::string& at, nlohmann::ordered_json& length);

}  // namespace lacuna::cli
