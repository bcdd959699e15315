// SPDX-License-Identifier: Apache-2.0
#include "cli/text.h"

namespace lacuna::cli {

std::vector<std::string> wrapped(std::string_view text, std::size_t columns) {
  std::vector<std::string> lines;
  constexpr std::string_view kSpace = " \t\r\n";
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos; at = text.find_first_not_of(kSpace, at)) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    at = end;
    if (lines.empty() || lines.back().size() + 1 + word.size() > columns) lines.emplace_back(word);
    else lines.back() += ' ' + std::string(word);
  }
  return lines;
}

std::string paragraph(std::string_view text, std::string_view indent, std::size_t columns) {
  std::string out;
  for (const std::string& line : wrapped(text, columns - indent.size())) out += std::string(indent) + line + "\n";
  return out;
}

}  // namespace lacuna::cli
