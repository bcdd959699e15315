// SPDX-License-Identifier: Apache-2.0
// Runs this program again as a child: a run of its own memory, whose crash is not ours.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace lacuna::cli {

struct ChildResult {
  int code = -1;  // exit code, or 128 + the signal that ended it
  std::string out, err;
  // Why it failed, as one line: the last line it wrote on stderr, or its code.
  std::string reason() const;
};

// `arguments` without the program's name; `tick` is called about twice a second with what the child
// has written so far. Ctrl-C at the terminal reaches the child by itself: both are of one process group.
ChildResult run_child(const std::vector<std::string>& arguments,
                      const std::function<void(const std::string& out)>& tick);

}  // namespace lacuna::cli
