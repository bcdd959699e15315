// SPDX-License-Identifier: Apache-2.0
// Thumbnails of what was kept, and of what mattered but was left out: a few heads of each method.
#include <algorithm>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"
#include "cli/page/shades.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

constexpr std::size_t kMostMaps = 6, kInRow = 3;
constexpr double kWidth = Chart::kWidth, kGap = 14, kName = 20, kWide = (kWidth - kGap * (kInRow - 1)) / kInRow;

// Squares in the cells of which much was lost: the more, the larger; digits are half powers of ten from 1e-4 on.
void draw_lost(Svg& svg, const Digits& lost, double x, double y, double cell) {
  struct Size {
    int from;
    double share;
  };
  for (const auto& [from, share] : {Size{3, 0.4}, Size{5, 0.7}, Size{7, 1.0}}) {
    std::vector<Svg::Box> boxes;
    const double side = cell * share, inset = (cell - side) / 2;
    for (std::size_t r = 0; r < lost.size(); ++r)
      for (std::size_t c = 0; c < lost[r].size(); ++c)
        if (const int digit = digit_at(lost, r, c); digit >= from && (digit < from + 2 || from == 7))
          boxes.push_back({x + cell * static_cast<double>(c) + inset, y + cell * static_cast<double>(r) + inset, side, side});
    svg.boxes(boxes, html_colour(5), 1);
  }
}

// Maps of one run; `exact`: where the mass lies, whatever was kept.
std::string thumbnails(const Json& maps, const std::string& id, const std::string& title, bool exact) {
  std::vector<const Json*> shown;
  for (const Json& map : maps)
    if (map.is_object() && shown.size() < kMostMaps) shown.push_back(&map);
  if (shown.empty()) return "";
  // As the JSON goes: layer by layer. Here heads lie below each other, layers side by side.
  std::stable_sort(shown.begin(), shown.end(), [](const Json* a, const Json* b) {
    return figure(*a, "/head").value_or(0) < figure(*b, "/head").value_or(0);
  });
  const double step = kName + kWide + 8;
  Svg svg(kWidth, step * static_cast<double>((shown.size() + kInRow - 1) / kInRow),
          exact ? "Maps: where the exact attention mass of a few heads lies, rows of the prompt by keys."
                : "Maps: which query-key pairs of a few heads were kept, and where mass was lost, rows of the prompt by keys.");
  for (std::size_t i = 0; i < shown.size(); ++i) {
    const Json& map = *shown[i];
    const auto digits = [&](const char* key) { return map.contains(key) ? digits_of(map[key]) : Digits{}; };
    const Digits shades = digits(exact ? "mass" : "kept");
    const double x = (kWide + kGap) * static_cast<double>(i % kInRow), y = step * static_cast<double>(i / kInRow) + kName;
    const double cell = kWide / static_cast<double>(std::max<std::size_t>(shades.size(), 1));
    svg.text(x, y - 6, fmt::format("layer {:.0f}, head {:.0f}", figure(map, "/layer").value_or(0), figure(map, "/head").value_or(0)));
    draw_shades(svg, shades, x, y, cell, cell, html_colour(0));
    if (!exact) draw_lost(svg, digits("lost"), x, y, cell);
    svg.ideal({{x, y}, {x, y + kWide}, {x + kWide, y + kWide}, {x, y}});
  }
  std::string keys, caption = "Rows of the prompt from the top down, keys from the left; an audited row for each part. ";
  if (exact) {
    keys = shade_keys(html_colour(0), {{1, "0.01 %"}, {3, "0.1 %"}, {5, "1 %"}, {7, "10 %"}, {9, "all"}});
    caption += "Shades: how much of the row's attention lies there.";
  } else {
    keys = shade_keys(html_colour(0), {{1, "few kept"}, {5, "half"}, {9, "all"}}) + shade_keys(html_colour(5), {{9, "lost"}});
    caption += "Squares: attention that was left out there, 0.1 % of the row's or more; larger from 1 %, filling the cell from 10 %.";
  }
  return figure_html(id, title, svg, keys, caption);
}

}  // namespace

std::string pattern_pictures(const Json& document, const Json& length) {
  std::string out;
  for (const Series& s : series_of(document)) {
    const Json* run = run_of(length, s);
    constexpr auto kWhere = "/patterns/maps";
    if (!run || !run->contains(Json::json_pointer(kWhere))) continue;
    const bool exact = s.name == "dense";
    out += thumbnails(run->at(Json::json_pointer(kWhere)), fmt::format("pattern-{}", s.number),
                      exact ? "Where attention lies" : "Kept and lost by " + s.name, exact);
  }
  return out;
}

}  // namespace lacuna::cli
