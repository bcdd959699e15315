// SPDX-License-Identifier: Apache-2.0
// The flags that check and bench share.
#pragma once

#include <string>
#include <vector>

#include "cli/case/case.h"
#include "cli/common.h"

namespace lacuna::cli {

struct CaseOptions {
  std::vector<std::string> words;  // CASES: files or whole lines
  CaseDefaults defaults;
  JsonSink json;

  void add_to(CLI::App& app);
  // The cases; without any, those of cases/<fallback>* in the working folder or the source tree.
  Result<std::vector<Case>> read(const std::string& fallback) const;
};

// Files cases/<prefix>*.txt, found from the working folder or from the program's own place
// (build/<preset>/lacuna); sorted, maybe none.
std::vector<std::string> case_files(const std::string& prefix);

}  // namespace lacuna::cli
