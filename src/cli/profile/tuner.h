// SPDX-License-Identifier: Apache-2.0
// The steps of lacuna tune that a model is needed for: reading texts while methods are tried, and checking a profile on the
// texts held back.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/llama/model.h"
#include "cli/llama/plugin.h"
#include "cli/profile/reading.h"
#include "engine/cost.h"

namespace lacuna::cli {

struct TuneOptions {
  std::string model, output, max_loss = "1%", methods;
  std::vector<std::string> texts;
  int context = 8192, threads = 0;
  unsigned long long seed = 1;
  long long max_tokens = 0;
  bool verbose = false;
};

// What the texts held back showed.
struct Checked {
  double lost = 0, upper = 1, density = 1;
};

class Tuner {
 public:
  Tuner(const TuneOptions& options, std::vector<std::string> methods) : o_(options), methods_(std::move(methods)) {}
  // Loads the model and cuts the texts; "" or the reason.
  std::string open(const std::vector<std::string>& texts);
  // Reads the texts, dense, every method tried: -1 with what was found, else the exit code.
  int observe(std::string& found);
  // Reads the texts held back with a profile; "" or the reason.
  std::string check(const std::string& profile, Checked& out);
  // What the methods cost on this machine.
  Result<CostModel> costs(const ModelFacts& model) const;

  const TuneOptions& options() const { return o_; }
  const std::vector<std::string>& methods() const { return methods_; }
  const Prompts& watched() const { return watched_; }
  const Prompts& held() const { return held_; }  // back, to check by
  ModelFacts file() const { return facts_of(model_.get()); }
  int chunk() const { return run_.ubatch; }
  std::string part() const { return o_.output + ".part"; }

 private:
  const TuneOptions& o_;
  std::vector<std::string> methods_;
  Plugin plugin_;
  ModelPtr model_;
  RunOptions run_;
  Prompts watched_, held_;
  nlohmann::json settings_;
};

}  // namespace lacuna::cli
