// SPDX-License-Identifier: Apache-2.0
// What a context's cache holds, so that a prompt which begins like the one before is read from where they differ.
#pragma once

#include <algorithm>
#include <vector>

#include <llama.h>

namespace lacuna::cli::task {

class Held {
 public:
  explicit Held(llama_context* context) : memory_(llama_get_memory(context)) {
    const llama_model* model = llama_get_model(context);
    // Where layers forget what left their window, a shortened cache lacks what the shorter prompt would see.
    can_cut_ = llama_model_n_swa(model) == 0 && !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model);
  }
  // Makes it hold nothing but a beginning of `prompt`, which is about to be read, and says how many tokens of it. The
  // last is never among them: its logits are wanted.
  int keep_for(const std::vector<llama_token>& prompt) {
    const std::size_t most = std::min(tokens_.size(), std::max<std::size_t>(prompt.size(), 1) - 1);
    std::size_t n = 0;
    while (n < most && tokens_[n] == prompt[n]) ++n;
    if (n == 0 || !can_cut_ || !llama_memory_seq_rm(memory_, 0, static_cast<llama_pos>(n), -1)) n = 0;
    if (n == 0) llama_memory_clear(memory_, true);
    tokens_ = prompt;
    return static_cast<int>(n);
  }
  void forget() { tokens_.clear(); }

 private:
  llama_memory_t memory_;
  bool can_cut_;
  std::vector<llama_token> tokens_;
};

}  // namespace lacuna::cli::task
