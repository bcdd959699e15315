// SPDX-License-Identifier: Apache-2.0
#include "cli/page/chart.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/page/html.h"

namespace lacuna::cli {

using Anchor = Svg::Anchor;

std::string figure_html(std::string_view id, std::string_view title, const Svg& picture, std::string_view keys,
                        std::string_view caption) {
  return fmt::format(
      "<figure id=\"{}\">\n<h3>{}</h3>\n{}<div class=\"keys\">{}</div>\n<figcaption>{}</figcaption>\n</figure>\n", id,
      html_escape(title), picture.done(), keys, caption);
}

Chart::Chart(std::string_view what, std::string_view x_words, double left, double right, double low, double high)
    : svg(kWidth, kHeight, what), x_low(left), x_high(right), y_low(low), y_high(high) {
  svg.text(kLeft + (kWidth - kLeft - kRight) / 2, kHeight - 6, x_words, Anchor::middle, true);
}

double Chart::x(double value) const { return kLeft + (value - x_low) / (x_high - x_low) * (kWidth - kLeft - kRight); }
double Chart::y(double value) const { return kTop + (y_high - value) / (y_high - y_low) * (kHeight - kTop - kBottom); }

void Chart::tick_x(double value, std::string_view words) {
  svg.rule(x(value), kTop, x(value), kHeight - kBottom);
  if (!words.empty()) svg.text(x(value), kHeight - kBottom + 16, words, Anchor::middle, true);
}

void Chart::tick_y(double value, std::string_view words) {
  svg.rule(kLeft, y(value), kWidth - kRight, y(value));
  svg.text(kLeft - 6, y(value) + 4, words, Anchor::end, true);
}

std::vector<double> ticks_over(double low, double high) {
  const double rough = std::max(high - low, 1e-12) / 5, power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double s : {5.0, 2.0, 1.0})
    if (s * power >= rough * 0.999) step = s * power;
  std::vector<double> ticks;
  for (double i = std::floor(low / step + 1e-9); ticks.size() < 2 || ticks.back() < high * 0.999; ++i)
    ticks.push_back(i * step);
  return ticks;
}

std::string bars_picture(std::string_view id, std::string_view title, std::string_view what,
                         const std::vector<Bar>& bars, std::string_view caption) {
  if (bars.empty()) return "";
  constexpr double kWidth = Chart::kWidth, kRow = 42, kValue = 62;
  const auto sum = [](const Bar& bar) {
    double s = 0;
    for (const Piece& p : bar.pieces) s += p.seconds;
    return s;
  };
  double most = 1e-9;
  for (const Bar& bar : bars) most = std::max(most, sum(bar));
  Svg svg(kWidth, kRow * static_cast<double>(bars.size()), what);
  const double scale = (kWidth - kValue) / most;
  double y = 0;
  std::vector<std::pair<const Piece*, bool>>
      kinds;  // each piece by its place in a bar, and whether a bar has some of it
  for (const Bar& bar : bars) {
    svg.text(0, y + 13, one_line(bar.name, 58));
    double x = 0;
    for (std::size_t i = 0; i < bar.pieces.size(); ++i) {
      const Piece& p = bar.pieces[i];
      if (kinds.size() <= i) kinds.emplace_back(&p, false);
      if (p.seconds <= 0) continue;
      kinds[i].second = true;
      // A gap tells neighbours apart where colours do not.
      const double width = p.seconds * scale;
      svg.rect(x, y + 18, width > 2 ? width - 1 : width, 16, p.colour,
               fmt::format("{}: {} {:.3f} s", bar.name, p.words, p.seconds));
      x += width;
    }
    svg.text(x + 6, y + 31, fmt::format("{:.{}f} s", sum(bar), most < 1 ? 3 : 2));
    y += kRow;
  }
  std::string keys;
  for (const auto& [piece, used] : kinds)
    if (used)
      keys += fmt::format("<span><i style=\"background:{}\"></i>{}</span>\n", piece->colour, html_escape(piece->words));
  return figure_html(id, title, svg, keys, caption);
}

}  // namespace lacuna::cli
