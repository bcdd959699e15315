// SPDX-License-Identifier: Apache-2.0
#include "cli/llama/prompt.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace lacuna::cli {

std::string in_template(const llama_model* model, const std::vector<Message>& messages) {
  const char* tmpl = llama_model_chat_template(model, nullptr);
  if (!tmpl) return "";
  std::vector<llama_chat_message> list;
  std::size_t size = 1024;
  for (const Message& m : messages) {
    list.push_back({m.role, m.text.c_str()});
    size += m.text.size() * 2;
  }
  std::string out(size, '\0');
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int n = llama_chat_apply_template(tmpl, list.data(), list.size(), true, out.data(), static_cast<int>(out.size()));
    if (n < 0) break;
    const bool fits = static_cast<std::size_t>(n) <= out.size();
    out.resize(static_cast<std::size_t>(n));
    if (fits) return out;
  }
  static bool said = false;
  if (!std::exchange(said, true)) note("llama.cpp does not know this model's chat template; the prompt goes in plain");
  return "";
}

std::vector<llama_token> tokenized(const llama_vocab* vocab, const std::string& text, bool special) {
  const int length = static_cast<int>(text.size());
  const int count = std::max(0, -llama_tokenize(vocab, text.data(), length, nullptr, 0, true, special));
  std::vector<llama_token> tokens(static_cast<std::size_t>(count));
  if (count > 0) llama_tokenize(vocab, text.data(), length, tokens.data(), count, true, special);
  return tokens;
}

bool make_prompt(const llama_model* model, const RunOptions& o, std::vector<llama_token>& tokens, std::string& error) {
  std::string text;
  if (!o.file.empty() && !read_text(o.file, text, error)) return false;
  if (!o.prompt.empty()) text += (text.empty() ? "" : "\n\n") + o.prompt;
  const std::string chat = o.no_chat || o.prompt.empty() ? "" : in_template(model, {{"user", text}});
  const bool special = !chat.empty();  // only a template's marks are special tokens, never the user's text
  if (special) text = chat;
  if (text.size() > kMostPromptBytes) {
    error = fmt::format("the prompt has {}; at most 1 GiB is taken", human_bytes(static_cast<double>(text.size())));
    return false;
  }
  tokens = tokenized(llama_model_get_vocab(model), text, special);
  if (tokens.empty()) error = "the prompt is empty: give a text with -f or -p";
  return !tokens.empty();
}

int context_tokens(const llama_model* model, const RunOptions& o, int prompt_tokens, std::string& error) {
  const int trained = trained_tokens(model);
  const auto rounded = [](long long n) { return static_cast<int>((n + 255) / 256 * 256); };
  const int needed = rounded(static_cast<long long>(prompt_tokens) + o.predict);
  const int tokens = o.context > 0 ? o.context : std::min(needed, trained);
  if (o.context > trained)
    note(fmt::format("-c {}: the model was trained on {} tokens; answers beyond that are seldom good", o.context, trained));
  if (prompt_tokens <= tokens) return tokens;
  error = prompt_tokens <= trained
              ? fmt::format("the prompt has {} tokens, the context holds {}: use -c {} or leave -c out", prompt_tokens,
                            tokens, std::min(needed, trained))
              : fmt::format("the prompt has {} tokens, the context holds {} (the model was trained on {}): shorten the text by {} tokens",
                            prompt_tokens, tokens, trained, prompt_tokens - trained);
  return 0;
}

}  // namespace lacuna::cli
