// SPDX-License-Identifier: Apache-2.0
// Pieces of a real text, and sentences hidden in them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/task/task.h"

namespace lacuna::cli::task {

struct Hidden {
  double depth;  // 0: before the text, 1: behind it
  std::string sentence;
};

// The text with each sentence between two of its own, nearest to its depth; where none ends near, between two words.
// Sentences for one place keep their order.
std::string hide(std::string_view text, const std::vector<Hidden>& hidden);

// The largest sample that `build` makes of a piece of the request's text. Where the text is longer than the piece, it
// begins at a random sentence. False, with `error`, when the text or the tokens are too few.
bool from_text(const Request& request, Rng& rng, const std::function<Sample(std::string_view)>& build, Sample& sample,
               std::string& error);

}  // namespace lacuna::cli::task
