// SPDX-License-Identifier: Apache-2.0
// What compare reads at each length: the beginning of the text, so many tokens long, and the question behind it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/compare/memory_file.h"
#include "cli/run/options.h"
#include "engine/registry.h"

namespace lacuna::cli {

struct CompareText {
  std::optional<long long> text_tokens;  // none: there is only a question
  int prompt_tokens = 0;                 // with the question and the chat template
  int context_tokens = 0;                // cells of the cache
  std::optional<double> kv_cache_bytes;  // of llama.cpp's own cache; none: the file does not say
  RunOptions options;                    // of the runs; `file` is the text cut to length
  MemoryFile cut;
};

// Bytes of K and V of so many cells in all layers, as llama.cpp's cache types store them; none: the file does not say.
std::optional<double> cache_bytes(const ModelFacts& facts, const RunOptions& o, int cells);

// One for each of `lengths` (tokens of the text), or the whole text if there are none. False, with `error`: the
// model or the text cannot be read, or a length is more than the text or the model's context holds.
// Takes the vocabulary of the model, not its weights.
bool make_compare_texts(const RunOptions& o, const std::vector<int>& lengths, std::vector<CompareText>& texts,
                        std::string& error);

}  // namespace lacuna::cli
