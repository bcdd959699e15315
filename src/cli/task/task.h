// SPDX-License-Identifier: Apache-2.0
// A built-in task: how its samples are made. A file of this folder is one task; list.inc has them all.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "cli/task/sample.h"

namespace lacuna::cli::task {

// What a sample is made from. `tokens_of` counts all that a sample makes the model hold when its last answer is
// written: text, template, questions, answers. It may be at most `tokens`.
struct Request {
  std::string_view text;  // a real text, what is hidden is hidden in it
  std::function<long long(const Sample&)> tokens_of;
  int tokens = 0;
  int index = 0, samples = 1;  // this sample's number, and how many there are
};

struct Task {
  std::string_view name, summary, paper;  // paper: "arXiv:..."; "" where there is none
  Scoring scoring;
  // False, with `error`, when the tokens or the text are too few. The same request and seed make the same sample.
  bool (*make)(const Request& request, Rng rng, Sample& sample, std::string& error);
};

#define LACUNA_TASK(name) extern const Task name##_task;
#include "cli/task/list.inc"
#undef LACUNA_TASK

std::span<const Task* const> all_tasks();
const Task* find_task(std::string_view name);
// All samples of a length. Each is seeded by itself: more samples or other lengths leave it as it is.
bool make_samples(const Task& task, Request request, std::uint64_t seed, std::vector<Sample>& samples,
                  std::string& error);

}  // namespace lacuna::cli::task
