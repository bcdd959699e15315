// SPDX-License-Identifier: Apache-2.0
// Text in columns.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lacuna::cli {

// Breaks text at blanks into lines of at most `columns` bytes; a longer word has a line of its own.
std::vector<std::string> wrapped(std::string_view text, std::size_t columns);
// The same with every line begun by `indent` and ended by a line break.
std::string paragraph(std::string_view text, std::string_view indent, std::size_t columns = 78);

}  // namespace lacuna::cli
