// SPDX-License-Identifier: Apache-2.0
// Reading and answering a prompt, and what that came to as JSON: what `run` and the tasks of compare share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/llama/model.h"

namespace lacuna::cli {

struct Outcome {
  int prompt_tokens = 0, read = 0, generated = 0, decode_steps = 0;
  double ttft_s = 0, decode_s = 0;  // ttft_s = 0: interrupted before the first logits
  std::string text;
};

// Reads the prompt by micro-batches, from token `from` on (the cache holds those before), and answers it greedily with
// at most o.predict tokens; before_answer is called in between. "" or the reason why decoding failed.
std::string answer(llama_context* context, const RunOptions& o, const std::vector<llama_token>& prompt, int from,
                   bool show, const std::function<void()>& before_answer, Outcome& out);

// The fields of a run (docs/compare.md). `report`: the plug-in's, null for stock.
nlohmann::ordered_json run_json(const RunOptions& o, const Outcome& out, const nlohmann::json& report);

}  // namespace lacuna::cli
