// SPDX-License-Identifier: Apache-2.0
// The runs of compare with a task: one process per method and length, which answers all samples.
#pragma once

#include <functional>

#include <nlohmann/json.hpp>

#include "cli/task/sets.h"

namespace lacuna::cli::task {

// As make_runs (compare_runs.h). Dense comes first at each length: the others are held against its answers.
void make_task_runs(const TaskSets& sets, bool kl, nlohmann::ordered_json& document,
                    const std::function<void()>& changed);

}  // namespace lacuna::cli::task
