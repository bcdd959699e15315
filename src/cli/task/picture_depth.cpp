// SPDX-License-Identifier: Apache-2.0
// A map of a method's scores: length to the right, depth down. One per method, all alike, so that they can be compared.
#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/compare/series.h"
#include "cli/lengths.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"
#include "cli/task/figures.h"
#include "cli/task/table.h"

namespace lacuna::cli::task {

using Json = nlohmann::ordered_json;
using Anchor = Svg::Anchor;

namespace {

constexpr std::size_t kMostRows = 11;
constexpr int kBins = 5;  // where depths are drawn at random

// The rows of the map: the depths there are, or fifths if they are many.
class Rows {
 public:
  explicit Rows(const Json& document) {
    std::set<double> depths;
    for (const Json& length : document["lengths"])
      if (length.contains("samples"))
        for (const Json& sample : length["samples"])
          if (const auto depth = figure(sample, "/depth")) depths.insert(*depth);
    if (depths.size() <= kMostRows) depths_.assign(depths.begin(), depths.end());
    count_ = depths_.empty() && !depths.empty() ? kBins : depths_.size();
  }
  std::size_t count() const { return count_; }
  std::size_t of(double depth) const {
    if (depths_.empty()) return static_cast<std::size_t>(std::clamp(static_cast<int>(depth * kBins), 0, kBins - 1));
    return static_cast<std::size_t>(std::find(depths_.begin(), depths_.end(), depth) - depths_.begin());
  }
  std::string words(std::size_t row) const {
    return depths_.empty() ? fmt::format("{}-{} %", 100 / kBins * row, 100 / kBins * (row + 1))
                           : fmt::format("{:.0f} %", 100 * depths_[row]);
  }

 private:
  std::vector<double> depths_;
  std::size_t count_ = 0;
};

struct Cell {
  double sum = 0;
  int n = 0;
};

// Scores of a method at a length, by row.
std::map<std::size_t, Cell> cells_of(const Json& length, const Json& run, const Rows& rows) {
  std::map<std::size_t, Cell> cells;
  if (!run.contains("samples") || !length.contains("samples")) return cells;
  for (std::size_t i = 0; i < std::min(run["samples"].size(), length["samples"].size()); ++i) {
    const auto depth = figure(length["samples"][i], "/depth"), score = figure(run["samples"][i], "/score");
    if (!depth || !score) continue;
    Cell& cell = cells[rows.of(*depth)];
    cell.sum += *score;
    ++cell.n;
  }
  return cells;
}

}  // namespace

std::string depth_picture(const Json& document, const Series& method) {
  const Rows rows(document);
  if (rows.count() == 0 || of_perplexity(document)) return "";
  const Json& lengths = document["lengths"];
  constexpr double kWidth = Chart::kWidth, kLeft = 70, kTop = 18, kRow = 24, kBottom = 22;
  const double height = kTop + kRow * static_cast<double>(rows.count()) + kBottom;
  const double column = (kWidth - kLeft) / static_cast<double>(lengths.size());
  Svg svg(kWidth, height, fmt::format("Map: scores of {} by the depth of the answer and the length.", method.name));
  for (std::size_t r = 0; r < rows.count(); ++r)
    svg.text(kLeft - 6, kTop + kRow * (static_cast<double>(r) + 0.5) + 4, rows.words(r), Anchor::end, true);
  svg.text(kLeft - 6, kTop - 6, "depth", Anchor::end, true);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const double x = kLeft + column * static_cast<double>(i);
    svg.text(x + column / 2, height - 6, length_words(tokens_of(lengths[i])), Anchor::middle, true);
    for (const Json& run : lengths[i]["runs"]) {
      if (run.at("method") != method.name) continue;
      for (const auto& [row, cell] : cells_of(lengths[i], run, rows)) {
        const double score = cell.sum / cell.n, y = kTop + kRow * static_cast<double>(row);
        svg.cell(x + 1, y + 1, column - 2, kRow - 2, score, fmt::format("{:.0f}", 100 * score),
                 fmt::format("{} at {}, depth {}: {:.0f} % of {}", method.name, length_words(tokens_of(lengths[i])),
                             rows.words(row), 100 * score, cell.n));
      }
    }
  }
  return figure_html(fmt::format("depth-{}", method.number), method.name, svg, "", "");
}

}  // namespace lacuna::cli::task
