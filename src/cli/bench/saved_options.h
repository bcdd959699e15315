// SPDX-License-Identifier: Apache-2.0
// The flags of bench that keep runs, compare with them and show them: cli/bench/{saved,against,history}.h.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/bench/against.h"
#include "cli/case/options.h"
#include "lacuna/result.h"

namespace lacuna::cli {

struct SavedOptions {
  std::string save, against, html;
  std::vector<std::string> history;
  double limit = 0;  // --fail-above; 0: none

  void add_to(CLI::App& app);
  // "" or which of them do not go together, or cannot be written; `runs` is -r, 0 when not given.
  std::string check(const CaseOptions& cases, int runs) const;
  // The run to compare with, or nothing. An error: its file is none, or --fail-above makes no sense with it.
  Result<std::optional<Against>> read_against() const;
  // --history: writes its page; an exit code.
  int show_history() const;
};

}  // namespace lacuna::cli
