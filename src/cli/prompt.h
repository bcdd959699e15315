// SPDX-License-Identifier: Apache-2.0
// From a text and a question to tokens, and how large a context they need.
#pragma once

#include <string>
#include <vector>

#include "cli/model.h"

namespace lacuna::cli {

constexpr std::size_t kMostPromptBytes = std::size_t{1} << 30;

// The tokens of -f and -p: in one user message of the model's chat template when there is a
// question and the model has a template, else plain. False, with `error`, when they make no prompt.
bool make_prompt(const llama_model* model, const RunOptions& o, std::vector<llama_token>& tokens, std::string& error);

// Tokens the context shall hold: -c, or prompt + predict rounded up to 256 and at most what the
// model was trained on. 0, with `error`, when the prompt does not fit.
int context_tokens(const llama_model* model, const RunOptions& o, int prompt_tokens, std::string& error);

}  // namespace lacuna::cli
