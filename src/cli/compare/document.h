// SPDX-License-Identifier: Apache-2.0
// What compare finds, as JSON: the file of --json, and what its tables and its page are made of. docs/compare.md has
// each field with its unit; a change that a reader would notice is a new version.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/compare/texts.h"

namespace lacuna::cli {

constexpr int kCompareVersion = 1;

// The states of a run. Those that are done or cut have figures, the others an `error` that says why not.
constexpr const char *kDone = "done", *kCut = "cut", *kRefused = "refused", *kDied = "died", *kMissing = "missing";

// All runs that are planned, none of them done.
nlohmann::ordered_json new_document(const RunOptions& o, const std::vector<CompareText>& texts,
                                    const std::vector<std::string>& methods, int rounds);
// Says in `partial` that runs are not there yet, or why they never will be; null when all ended by themselves.
void mark_partial(nlohmann::ordered_json& document, bool running, bool interrupted);
// How many runs are in this state.
int count_runs(const nlohmann::ordered_json& document, std::string_view state);
// Reads what --json wrote. False, with `error`, if the file cannot be read or is not of this version.
bool read_document(const std::string& path, nlohmann::ordered_json& document, std::string& error);

}  // namespace lacuna::cli
