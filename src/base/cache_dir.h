// SPDX-License-Identifier: Apache-2.0
// The folder where Lacuna keeps what it made once for this machine: LACUNA_CACHE, else the user's cache.
#pragma once

#include <cstdlib>
#include <string>

namespace lacuna {

// Without a slash at its end; empty if the environment names no place. Need not exist.
inline std::string cache_dir() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value ? value : "");
  };
  if (const std::string own = variable("LACUNA_CACHE"); !own.empty()) return own;
  if (const std::string xdg = variable("XDG_CACHE_HOME"); !xdg.empty()) return xdg + "/lacuna";
  if (const std::string home = variable("HOME"); !home.empty()) return home + "/.cache/lacuna";
  return "";
}

}  // namespace lacuna
