// SPDX-License-Identifier: Apache-2.0
// From a sample to tokens: its turns in the model's chat template, or plain where there is none.
#pragma once

#include <vector>

#include "cli/llama/model.h"
#include "cli/task/sample.h"

namespace lacuna::cli::task {

class Prompts {
 public:
  Prompts(const llama_model* model, bool no_chat) : model_(model), no_chat_(no_chat) {}
  // What the model reads before it answers question `turn`: earlier questions with their right answers, and how the
  // answer begins. Without questions the text alone.
  std::vector<llama_token> of(const Sample& sample, std::size_t turn) const;
  // Tokens of the last question's prompt and of its answer: what the context must hold.
  long long tokens_of(const Sample& sample) const;

 private:
  const llama_model* model_;
  bool no_chat_;
};

}  // namespace lacuna::cli::task
