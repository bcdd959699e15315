// SPDX-License-Identifier: Apache-2.0
// What calibrate and tune share: texts cut into prompts, read by a model while the plug-in's calibrator watches, the state
// kept in PROFILE.part after every prompt, from which the same command goes on.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/llama/model.h"
#include "cli/llama/plugin.h"

namespace lacuna::cli {

struct Prompts {
  std::vector<std::vector<llama_token>> all;
  nlohmann::json texts = nlohmann::json::array();  // name, tokens and hash of each
  long long tokens = 0;                            // of all prompts
};

// The texts of files, in order; "" or the reason.
std::string read_texts(const std::vector<std::string>& files, std::vector<std::string>& texts);
// Texts, each cut into prompts of `context` tokens, the last of a text maybe shorter; of max_tokens in all, 0 = no limit. "" or
// the reason.
std::string cut(const llama_model* model, const std::vector<std::string>& files, const std::vector<std::string>& texts, int context,
                long long max_tokens, Prompts& out);
// Reads one prompt from an empty context, telling `progress` how many of its tokens are read; "" or the reason. Interrupted: it
// stops at a micro-batch.
std::string read_prompt(llama_context* context, const std::vector<llama_token>& prompt, int ubatch, const std::function<void(int)>& progress);

// Reads the prompts from the first that `part` does not have; settings: what a part must have been made with. -1 when all are
// read, else the exit code, the reason told. resumed: how many the part had.
int watch(llama_context* context, const Prompts& prompts, int ubatch, const Plugin& plugin, const std::string& part,
          const nlohmann::json& settings, const std::string& label, int& resumed);

// A profile of `slug` from the plug-in's answer {"model", "params", "data"} and what the model's file says of itself.
Result<Profile> profile_of(std::string_view slug, const std::string& found, const ModelFacts& file);

// "" or why no profile can be written to `path`.
std::string check_output(const std::string& path);

}  // namespace lacuna::cli
