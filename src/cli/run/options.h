// SPDX-License-Identifier: Apache-2.0
// What a run is made of, as options: the same for run, compare and kl, with llama.cpp's names.
#pragma once

#include <string>
#include <vector>

#include "cli/common.h"

namespace lacuna::cli {

// What may be lost: shares as "1%" or "0.01"; empty = not asked for.
struct Limits {
  std::string max_loss = {}, max_error = {};  // a contract, of the run's mean
  std::string certify = {};                   // proved of every decoded row
};

struct RunOptions {
  std::string model, file, prompt;
  std::string method = "dense";                  // run only; "stock" = llama.cpp without Lacuna
  int predict = 128;                             // tokens to generate at most; 0 = read only
  int context = 0;                               // tokens; 0 = what the prompt needs
  int threads = 0;                               // 0 = one per core
  int batch = 2048, ubatch = 512;                // tokens of a call, of a micro-batch
  std::string audit = "sample";                  // off, sample, full
  Limits limits;
  std::string precision = "fast";                // fast, high
  std::string windowed = "dense";                // dense, sparse: layers with a window of the model's own
  std::string kernel, machine;                   // empty = the best there is
  unsigned long long seed = 0;                   // of whatever a method or the audit draws
  std::string cache_type_k = "f16", cache_type_v = "f16";
  bool patterns = false;                         // pictures of what is kept, in the JSON
  bool no_chat = false, verbose = false;
};

// Everything but --method.
void add_run_options(CLI::App& app, RunOptions& options);
// What CLI11 cannot see: "" or the reason. Fills in `threads`.
std::string check_run_options(RunOptions& options);
// "" or what is wrong with the shares; and what they are as words of a plug-in's text.
std::string check_limits(const Limits& limits);
std::string limit_words(const Limits& limits);
// What --profile says, as a method of its own; "" or what is wrong: a profile that cannot be read, or a method given besides.
std::string take_profile(const std::string& profile, bool method_given, std::string& method);
// "" or why `spec` names no method ("stock" does); the text names the nearest one.
std::string check_method(const std::string& spec);
// "" or why a profile that `spec` names is of another model than the file's. A file that cannot be read,
// or a build without llama.cpp, finds nothing: others complain, or the session will.
std::string check_profiles(const std::string& spec, const std::string& model_path);
// The options as arguments for a child process, all but the method.
std::vector<std::string> to_arguments(const RunOptions& options);
// The text that configures the plug-in: "SPEC key=value ...".
std::string plugin_text(const RunOptions& options, const std::string& method);

}  // namespace lacuna::cli
