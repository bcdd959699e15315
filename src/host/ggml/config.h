// SPDX-License-Identifier: Apache-2.0
// What the user asked for, in one line of text:
//   SPEC [key=value ...]     "xattention:stride=8 audit=sample precision=high log=60s report=/tmp/r.json"
// For tests alone: side=all keeps every kind of side data, whatever the method asks for.
#pragma once

#include <string>

#include "lacuna/lacuna.h"

namespace lacuna::ggml {

struct Config {
  Options options;
  std::string report;       // file for the report, written when a context ends and with each line; empty = none
  int log_seconds = 0;      // between two lines in the host's log while it works; 0 = none
  bool quiet = false;       // no summary line on stderr
  bool side_all = false;    // every kind of side data, whatever the method
  std::string device = "auto";  // gpu, accel, or auto: gpu unless another GPU is there
};

// Also opens a session to try the method, kernel and machine named.
Result<Config> parse_config(const std::string& text);

}  // namespace lacuna::ggml
