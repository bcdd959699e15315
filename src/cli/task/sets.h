// SPDX-License-Identifier: Apache-2.0
// The samples of `compare --task`, one set for each length: made for the model's tokens, or read from a file.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/compare/texts.h"
#include "cli/task/sample.h"

namespace lacuna::cli::task {

struct TaskOptions {
  std::string name;      // of a built-in task, or a file *.jsonl; "" = no task
  int samples = 0;       // of each length; 0 = 5, or all of a file
  bool answers = false;  // -n was given: it holds for all samples
};

struct TaskSets {
  nlohmann::ordered_json about;    // the document's `task`
  std::vector<CompareText> texts;  // one per length; `options` are those of a run, its file the samples
  std::vector<std::vector<Sample>> samples;
  std::vector<MemoryFile> first;  // the text of each length's first sample, for the pass that compares logits
  // Options of that pass.
  RunOptions of_first(std::size_t length) const;
};

// Is it a file, by its name?
bool is_task_file(const std::string& name);
// "" or why there is no such task, with those there are.
std::string check_task(const TaskOptions& task);
// The text of built-in tasks where -f names none: the demo's, from beside the model or from models/; "" if not there.
std::string default_text(const std::string& model);
// `o.file` is the text, or the file of samples. False, with `error`, e.g. when a length does not hold the task, or the
// model's context does not hold a length.
bool make_task_sets(const RunOptions& o, const TaskOptions& task, std::vector<int> lengths, TaskSets& sets,
                    std::string& error);

}  // namespace lacuna::cli::task
