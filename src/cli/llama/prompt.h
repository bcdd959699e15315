// SPDX-License-Identifier: Apache-2.0
// From a text and a question to tokens, and how large a context they need.
#pragma once

#include <string>
#include <vector>

#include "cli/llama/model.h"

namespace lacuna::cli {

constexpr std::size_t kMostPromptBytes = std::size_t{1} << 30;

struct Message {
  const char* role;  // "user", "assistant"
  std::string text;
};
// The messages in the model's chat template, with the beginning of an answer; "" if it has none, or one that llama.cpp
// does not know.
std::string in_template(const llama_model* model, const std::vector<Message>& messages);
// `special`: a template's marks are tokens of their own.
std::vector<llama_token> tokenized(const llama_vocab* vocab, const std::string& text, bool special);

// The tokens of -f and -p: in one user message of the model's chat template when there is a
// question and the model has a template, else plain. False, with `error`, when they make no prompt.
bool make_prompt(const llama_model* model, const RunOptions& o, std::vector<llama_token>& tokens, std::string& error);

// Tokens the context shall hold: -c, or prompt + predict rounded up to 256 and at most what the
// model was trained on. 0, with `error`, when the prompt does not fit.
int context_tokens(const llama_model* model, const RunOptions& o, int prompt_tokens, std::string& error);

}  // namespace lacuna::cli
