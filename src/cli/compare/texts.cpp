// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/texts.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/lengths.h"
#include "cli/llama/model.h"
#include "cli/llama/prompt.h"

namespace lacuna::cli {

namespace {

long long count_tokens(const llama_vocab* vocab, std::string_view text) {
  return std::max(0, -llama_tokenize(vocab, text.data(), static_cast<int>(text.size()), nullptr, 0, false, false));
}

// The longest beginning of the text with at most `most` tokens that ends between two characters. Found by halving:
// not every tokenizer's tokens, joined, are the text again.
std::string_view beginning(const llama_vocab* vocab, std::string_view text, long long most) {
  const auto ends_well = [text](std::size_t n) {
    while (n > 0 && n < text.size() && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) --n;
    return n;
  };
  std::size_t fits = 0, too_long = static_cast<std::size_t>(most) + 1;
  while (too_long <= text.size() && count_tokens(vocab, text.substr(0, ends_well(too_long))) <= most) too_long *= 2;
  too_long = std::min(too_long, text.size() + 1);
  while (too_long - fits > 1) {
    const std::size_t middle = fits + (too_long - fits) / 2;
    if (count_tokens(vocab, text.substr(0, ends_well(middle))) <= most)
      fits = middle;
    else
      too_long = middle;
  }
  return text.substr(0, ends_well(fits));
}

// Counts what a text makes; false, with `error`, when the context cannot hold it.
bool measure(const llama_model* model, CompareText& t, std::string& error) {
  std::vector<llama_token> prompt;
  if (!make_prompt(model, t.options, prompt, error)) return false;
  t.prompt_tokens = static_cast<int>(prompt.size());
  t.context_tokens = context_tokens(model, t.options, t.prompt_tokens, error);
  t.kv_cache_bytes = cache_bytes(facts_of(model), t.options, t.context_tokens);
  return t.context_tokens > 0;
}

}  // namespace

std::optional<double> cache_bytes(const ModelFacts& f, const RunOptions& o, int cells) {
  if (f.n_layers <= 0 || f.hkv <= 0 || f.dk <= 0 || f.dv <= 0) return std::nullopt;
  const auto row = [&](const std::string& type, int channels) {
    const ggml_type t = cache_type(type);
    return static_cast<double>(ggml_type_size(t)) / static_cast<double>(ggml_blck_size(t)) * f.hkv * channels;
  };
  return (row(o.cache_type_k, f.dk) + row(o.cache_type_v, f.dv)) * f.n_layers * cells;
}

bool make_compare_texts(const RunOptions& o, const std::vector<int>& lengths, std::vector<CompareText>& texts,
                        std::string& error) {
  keep_log(o.verbose);
  if (error = load_backends(); !error.empty()) return false;
  const ModelPtr model = load_vocabulary(o.model, error);
  if (!model) return false;
  std::string text;
  if (!o.file.empty() && !read_text(o.file, text, error)) return false;
  if (text.size() > kMostPromptBytes) {
    error = fmt::format("{} has {}; at most 1 GiB is taken", o.file, human_bytes(static_cast<double>(text.size())));
    return false;
  }
  const llama_vocab* vocab = llama_model_get_vocab(model.get());
  const auto whole = o.file.empty() ? std::nullopt : std::optional(count_tokens(vocab, text));
  if (lengths.empty()) {
    texts.emplace_back();
    texts.back().options = o;
    texts.back().text_tokens = whole;
    return measure(model.get(), texts.back(), error);
  }
  if (lengths.back() > whole.value_or(0)) {
    error = fmt::format("--lengths {}: {} has {} tokens of this model; give a longer text or lengths up to that",
                        length_words(lengths.back()), o.file, length_words(whole.value_or(0)));
    return false;
  }
  for (const int length : lengths) {
    CompareText& t = texts.emplace_back();
    t.options = o;
    const std::string_view cut = beginning(vocab, text, length);
    if (error = t.cut.write(cut); !error.empty()) return false;
    t.options.file = t.cut.path();
    t.text_tokens = count_tokens(vocab, cut);
    if (!measure(model.get(), t, error)) {
      error = fmt::format("--lengths {}: {}", length_words(length), error);
      return false;
    }
  }
  return true;
}

}  // namespace lacuna::cli
