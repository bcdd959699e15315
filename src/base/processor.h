// SPDX-License-Identifier: Apache-2.0
// The processor by name, for people and for files that belong to one machine. What it can do is machine.h's.
#pragma once

#include <fstream>
#include <string>

namespace lacuna {

// As its maker writes it; "unknown" where the system does not tell.
inline std::string processor_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);)
    if (line.rfind("model name", 0) == 0)
      if (const auto at = line.find_first_not_of(" \t", line.find(':') + 1); at != std::string::npos) return line.substr(at);
  return "unknown";
}

}  // namespace lacuna
