// SPDX-License-Identifier: Apache-2.0
// The small tables of several lengths.
#include <algorithm>
#include <functional>
#include <vector>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/document.h"
#include "cli/compare/figures.h"
#include "cli/compare/table.h"
#include "cli/lengths.h"
#include "cli/text.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kNameColumns = 15, kAtOnce = 7;  // 15 + 7 columns of 9 = 78

// The cell of a run at a length.
using Cell = std::function<std::string(const Json& length, const Json& run)>;

std::string speed_cell(const Json& length, const Json& run) {
  if (!worked(run)) return "-";
  if (run["method"] == "stock") return fmt::format("{:.2f} s", *figure(run, "/ttft_s"));
  return plain(speedup(length, run), "{:.2f}x");
}

std::string loss_cell(const Json&, const Json& run) { return worked(run) ? share(lost_mass(run)) : "-"; }

// Lengths from `first` on, as many as a line holds.
std::string block(const Json& document, std::size_t first, std::string_view title, bool stock_too, const Cell& cell) {
  const Json& lengths = document["lengths"];
  const std::size_t last = std::min(lengths.size(), first + kAtOnce);
  std::string out = bold(fmt::format("{:<{}}", title, kNameColumns));
  for (std::size_t i = first; i < last; ++i) out += fmt::format(" {:>8}", length_words(tokens_of(lengths[i])));
  out += "\n";
  const std::size_t methods = document["methods"].size();
  for (std::size_t m = 0; m < methods; ++m) {
    std::string name = document["methods"][m].get<std::string>();
    if (name == "stock" && !stock_too) continue;
    if (name.size() > kNameColumns) {  // a long spec stands on a line of its own
      out += one_line(name, 80) + "\n";
      name.clear();
    }
    out += fmt::format("{:<{}}", name, kNameColumns);
    for (std::size_t i = first; i < last; ++i) {
      const Json& runs = lengths[i]["runs"];
      out += fmt::format(" {:>8}", m < runs.size() ? cell(lengths[i], runs[m]) : "-");
    }
    out += "\n";
  }
  return out;
}

}  // namespace

std::string lengths_table(const Json& document) {
  std::string out =
      "By tokens of text: how many times sooner than stock the first token came, and\nthe lost attention mass.\n";
  for (std::size_t first = 0; first < document["lengths"].size(); first += kAtOnce) {
    out += "\n" + block(document, first, "speed-up", true, speed_cell);
    out += "\n" + block(document, first, "lost", false, loss_cell);
  }
  for (const Json& length : document["lengths"])
    for (const Json& run : length["runs"])
      if (const std::string words = state_words(run); !words.empty() && run["state"] != kMissing)
        out += paragraph(
            fmt::format("{} at {}: {}", run["method"].get<std::string>(), length_words(tokens_of(length)), words), "  ",
            80);
  return out;
}

}  // namespace lacuna::cli
