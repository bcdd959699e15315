// SPDX-License-Identifier: Apache-2.0
// llama.cpp as this program uses it: its log kept, its backends loaded, a model, a context.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <llama.h>

#include "cli/run/options.h"
#include "engine/registry.h"

namespace lacuna::cli {

struct ModelDeleter {
  void operator()(llama_model* m) const { llama_model_free(m); }
};
struct ContextDeleter {
  void operator()(llama_context* c) const { llama_free(c); }
};
using ModelPtr = std::unique_ptr<llama_model, ModelDeleter>;
using ContextPtr = std::unique_ptr<llama_context, ContextDeleter>;

// Keeps llama.cpp's log from here on; `verbose` also shows it on stderr.
void keep_log(bool verbose);
// The last error lines of that log as one line; "" if there was none.
std::string last_log_errors();

// Loads ggml's CPU backends: from $LLAMA_DIR, else from where the build found llama.cpp, else from
// beside libggml. "" or the reason why there is no CPU backend.
std::string load_backends();
// "llama.cpp 0.5.0-dev (ggml 0.25.3)"
std::string host_version();

// `devices` beside the CPU that may hold the model (none: the CPU alone). Null, with `error`: the
// file cannot be read, is no GGUF, is cut off, or is of a kind llama.cpp does not know.
ModelPtr load_model(const std::string& path, std::vector<ggml_backend_dev_t> devices, std::string& error);
// The head of the file alone, for its vocabulary and what it says of the model.
ModelPtr load_vocabulary(const std::string& path, std::string& error);
// The longest context it was trained on; 0 if its file does not say.
int trained_tokens(const llama_model* model);
// What the model's file says of itself; 0, "" or unknown where it says nothing, or differs by layer.
ModelFacts facts_of(const llama_model* model);

// A type of the cache by its name, one of those that add_run_options takes.
ggml_type cache_type(const std::string& name);
// `tokens`: what the context holds. `batch`: tokens of a call. Flash attention is on unless stock shall
// compute in another way: only then is there one attention operation that Lacuna can take.
ContextPtr make_context(llama_model* model, const RunOptions& o, int tokens, int batch, int ubatch, std::string& error,
                        bool flash_attention = true);
// Runs the model once on two tokens, so that no later time contains reading its weights from disk.
void warm_up(llama_context* context);

// Decodes `count` tokens at `position`, wanting logits of those at or behind `wanted` (a position)
// whose distance from `wanted` is a multiple of `stride`. Answers llama_decode's code.
int decode(llama_context* context, const llama_token* tokens, int count, int position, int wanted, int stride = 1);

// Ctrl-C: the first asks the work to end after the present micro-batch or token, the second kills.
void catch_interrupt();
bool interrupted();

}  // namespace lacuna::cli
