// SPDX-License-Identifier: Apache-2.0
#include "cli/task/task.h"

namespace lacuna::cli::task {

std::span<const Task* const> all_tasks() {
#define LACUNA_TASK(name) &name##_task,
  static const Task* const tasks[] = {
#include "cli/task/list.inc"
  };
#undef LACUNA_TASK
  return tasks;
}

const Task* find_task(std::string_view name) {
  for (const Task* task : all_tasks())
    if (task->name == name) return task;
  return nullptr;
}

bool make_samples(const Task& task, Request request, std::uint64_t seed, std::vector<Sample>& samples,
                  std::string& error) {
  Rng rng(seed);
  std::uint64_t state = rng.next();
  for (const char c : task.name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  state ^= static_cast<std::uint64_t>(request.tokens) << 32;
  for (request.index = 0; request.index < request.samples; ++request.index) {
    Sample& sample = samples.emplace_back();
    if (!task.make(request, Rng(Rng(state + static_cast<std::uint64_t>(request.index)).next()), sample, error))
      return false;
  }
  return true;
}

}  // namespace lacuna::cli::task
