// SPDX-License-Identifier: Apache-2.0
// A run of bench in a file: what --save writes, and --against and --history read. docs/bench.md has its fields.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lacuna/result.h"

namespace lacuna::cli {

// What is compared of a case: the time of each round, or a share where that is what the case is about.
struct CaseRounds {
  std::string line, kernel;
  std::string figure;          // "ms" or "share_of_dense"
  std::vector<double> rounds;  // at least kFewestRounds
};

struct SavedRun {
  std::string path;  // where it was read from; "" for a run of this process
  std::string machine, lacuna, commit, date;  // commit: "" when unknown; date: UTC, 2026-11-27T02:45:30Z
  std::vector<CaseRounds> cases;
};

// A run that begins now, on this machine, with no case yet.
SavedRun new_run();
// "" or the reason why the file could not be written; it is whole or not there.
std::string save_run(const std::string& path, const SavedRun& run);
// Errors name the option and the file: it cannot be read, is of another kind or version, or is damaged.
Result<SavedRun> read_run(std::string_view option, const std::string& path);

// The middle of the rounds.
double median_of(const CaseRounds& c);

}  // namespace lacuna::cli
