// SPDX-License-Identifier: Apache-2.0
#include "cli/prompt.h"

#include <algorithm>

#include <fmt/format.h>

namespace lacuna::cli {

namespace {

// "" if the model has no template, or one llama.cpp does not know.
std::string as_chat(const llama_model* model, const std::string& content) {
  const char* tmpl = llama_model_chat_template(model, nullptr);
  if (!tmpl) return "";
  const llama_chat_message message = {"user", content.c_str()};
  std::string out(content.size() * 2 + 1024, '\0');
  for (int attempt = 0; attempt < 2; ++attempt) {
    const int n = llama_chat_apply_template(tmpl, &message, 1, true, out.data(), static_cast<int>(out.size()));
    if (n < 0) break;
    const bool fits = static_cast<std::size_t>(n) <= out.size();
    out.resize(static_cast<std::size_t>(n));
    if (fits) return out;
  }
  note("llama.cpp does not know this model's chat template; the prompt goes in plain");
  return "";
}

}  // namespace

bool make_prompt(const llama_model* model, const RunOptions& o, std::vector<llama_token>& tokens, std::string& error) {
  std::string text;
  if (!o.file.empty() && !read_text(o.file, text, error)) return false;
  if (!o.prompt.empty()) text += (text.empty() ? "" : "\n\n") + o.prompt;
  const std::string chat = o.no_chat || o.prompt.empty() ? "" : as_chat(model, text);
  const bool special = !chat.empty();  // only a template's marks are special tokens, never the user's text
  if (special) text = chat;
  if (text.size() > kMostPromptBytes) {
    error = fmt::format("the prompt has {}; at most 1 GiB is taken", human_bytes(static_cast<double>(text.size())));
    return false;
  }
  const llama_vocab* vocab = llama_model_get_vocab(model);
  const int length = static_cast<int>(text.size());
  const int count = -llama_tokenize(vocab, text.data(), length, nullptr, 0, true, special);
  tokens.resize(static_cast<std::size_t>(std::max(count, 0)));
  if (count > 0) llama_tokenize(vocab, text.data(), length, tokens.data(), count, true, special);
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
