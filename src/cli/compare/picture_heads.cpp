// SPDX-License-Identifier: Apache-2.0
// The density of each head of each layer: one small map per method.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"
#include "cli/page/shades.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

struct HeadMap {
  std::string name;
  Digits layers;  // a text per layer, a digit per head
  std::size_t heads = 0;
};

// 0 only for nothing, 9 only for everything.
char digit_of(double density) {
  if (density <= 0) return '0';
  return density >= 1 ? '9' : static_cast<char>('1' + std::min(7, static_cast<int>(density * 8)));
}

HeadMap head_map(const std::string& name, const Json& density) {
  HeadMap map{name, {}, 0};
  for (const Json& layer : density) {
    if (map.layers.size() == kMostCells) break;
    std::string& row = map.layers.emplace_back();
    if (!layer.is_array()) continue;  // a layer with a window of its own, or one that was left to llama.cpp
    for (const Json& head : layer)
      if (row.size() < kMostCells) row += head.is_number() ? digit_of(head.get<double>()) : ' ';
    map.heads = std::max(map.heads, row.size());
  }
  return map;
}

}  // namespace

std::string heads_picture(const Json& document, const Json& length) {
  std::vector<HeadMap> maps;
  std::size_t layers = 1, heads = 1;
  for (const Series& s : series_of(document)) {
    const Json* run = run_of(length, s);
    constexpr auto kWhere = "/patterns/density";
    if (!run || s.name == "stock" || s.name == "dense" || !run->contains(Json::json_pointer(kWhere))) continue;
    const Json& density = run->at(Json::json_pointer(kWhere));
    if (!density.is_array()) continue;
    maps.push_back(head_map(s.name, density));
    layers = std::max(layers, maps.back().layers.size());
    heads = std::max(heads, maps.back().heads);
  }
  if (maps.empty()) return "";
  constexpr double kWidth = Chart::kWidth, kLeft = 24, kGap = 16, kName = 20, kFoot = 22, kHigh = 150;
  constexpr std::size_t kInRow = 3;
  const double wide = (kWidth - kLeft - kGap * (kInRow - 1)) / kInRow, w = wide / static_cast<double>(heads),
               h = kHigh / static_cast<double>(layers), step = kName + kHigh + kFoot;
  const auto rows = static_cast<double>((maps.size() + kInRow - 1) / kInRow);
  Svg svg(kWidth, step * rows, "Maps: the density of each head, heads across, layers from the first at the top down, one map per method.");
  for (std::size_t i = 0; i < maps.size(); ++i) {
    const double x = kLeft + (wide + kGap) * static_cast<double>(i % kInRow), y = step * static_cast<double>(i / kInRow) + kName;
    svg.text(x, y - 6, one_line(maps[i].name, 17));
    svg.rule(x, y, x + wide, y);
    svg.rule(x, y + kHigh, x + wide, y + kHigh);
    draw_shades(svg, maps[i].layers, x, y, w, h, html_colour(0));
    if (i % kInRow == 0) {
      svg.text(x - 5, y + 10, "0", Svg::Anchor::end, true);
      svg.text(x - 5, y + kHigh, fmt::format("{}", layers - 1), Svg::Anchor::end, true);
    }
    svg.text(x + wide / 2, y + kHigh + 14, fmt::format("heads 0 to {}", heads - 1), Svg::Anchor::middle, true);
  }
  return figure_html("heads", "Density of each layer and head", svg,
                     shade_keys(html_colour(0), {{1, "below 1/8 kept"}, {4, "about half"}, {8, "7/8 and more"}, {9, "all"}}),
                     "Layers from the top down, heads across; query-key pairs kept in the prompt. Blank: nothing kept, or a layer whose window "
                     "is the model's own.");
}

}  // namespace lacuna::cli
