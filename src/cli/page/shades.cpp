// SPDX-License-Identifier: Apache-2.0
#include "cli/page/shades.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/page/html.h"

namespace lacuna::cli {

namespace {

constexpr int kDigits = 10;
constexpr double opacity_of(int digit) { return digit / 9.0; }

}  // namespace

Digits digits_of(const nlohmann::ordered_json& rows) {
  Digits out;
  if (!rows.is_array()) return out;
  for (const auto& row : rows) {
    if (out.size() == kMostCells) break;
    out.push_back(row.is_string() ? row.get<std::string>().substr(0, kMostCells) : "");
  }
  return out;
}

int digit_at(const Digits& rows, std::size_t row, std::size_t column) {
  if (row >= rows.size() || column >= rows[row].size()) return 0;
  const char c = rows[row][column];
  return c >= '0' && c <= '9' ? c - '0' : 0;
}

void draw_shades(Svg& svg, const Digits& rows, double x, double y, double w, double h, std::string_view colour) {
  for (int digit = 1; digit < kDigits; ++digit) {
    std::vector<Svg::Box> boxes;
    for (std::size_t r = 0; r < rows.size(); ++r)
      for (std::size_t c = 0; c < rows[r].size();) {
        std::size_t end = c;
        while (end < rows[r].size() && digit_at(rows, r, end) == digit) ++end;
        if (end > c) boxes.push_back({x + w * static_cast<double>(c), y + h * static_cast<double>(r), w * static_cast<double>(end - c), h});
        c = std::max(end, c + 1);
      }
    svg.boxes(boxes, colour, opacity_of(digit));
  }
}

std::string shade_keys(std::string_view colour, const std::vector<std::pair<int, std::string>>& words) {
  std::string out;
  for (const auto& [digit, text] : words)
    out += fmt::format("<span><i style=\"background:{};opacity:{:.2f}\"></i>{}</span>\n", colour, opacity_of(digit), html_escape(text));
  return out;
}

}  // namespace lacuna::cli
