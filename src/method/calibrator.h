// SPDX-License-Identifier: Apache-2.0
// Calibrator: how a method finds out about a model what it needs in a profile. Made by
// Method::calibrator(), fed by a session that runs dense, asked at the end.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lacuna/result.h"
#include "method/method.h"

namespace lacuna {

// What one method would have kept and lost in some rows of a call: sums over these rows, by query head.
struct Trial {
  int layer = 0;
  std::int64_t keys = 0;         // of the call
  std::size_t method = 0;        // number in Calibrator::trials()
  std::int64_t rows = 0;
  double pairs = 0;              // that these rows see, of one head
  std::span<const double> kept;  // [Hq] of those pairs
  std::span<const double> lost;  // [Hq] lost mass, as an audit counts it
};

class Calibrator {
 public:
  virtual ~Calibrator() = default;
  // Methods, as specs, that the session shall try on a few rows of every call; each comes back by tried().
  virtual std::vector<std::string> trials() const { return {}; }
  virtual void tried(const Trial&) {}
  // The rows of one sequence in one call of one layer, with raw K and V. A text comes in prompts, a
  // prompt in micro-batches; every layer sees all of them.
  virtual Status observe(const AttentionView& x, Context& context) = 0;
  // Tokens of a prompt into which texts are best cut.
  virtual int prompt_tokens() const { return 512; }
  // All that was observed, as JSON, so that an interrupted calibration goes on; load() takes it back in
  // a fresh calibrator of the same parameters. The text lay on a disk: load() checks it.
  virtual nlohmann::json save() const = 0;
  virtual Status load(const nlohmann::json& state) = 0;
  // The profile's `data`, an object that Method::use() takes; or what is missing:
  // "text too short: got 120 tokens, need 512 or more".
  virtual Result<nlohmann::json> finish() const = 0;
};

}  // namespace lacuna
