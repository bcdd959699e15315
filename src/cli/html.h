// SPDX-License-Identifier: Apache-2.0
// One HTML page that needs nothing else: no network, no script; light and dark, phone and print.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lacuna::cli {

// & < > " as entities.
std::string html_escape(std::string_view text);

// A whole page. `body` is HTML.
std::string html_page(std::string_view title, std::string_view body);

// Colours that colour-blind people tell apart (Okabe and Ito), by number.
std::string_view html_colour(std::size_t i);

// A picture in units of about one CSS pixel, as wide as the page lets it be; text takes the page's colour.
class Svg {
 public:
  Svg(double width, double height, std::string_view what);  // `what`: a sentence for those who cannot see it
  void rect(double x, double y, double w, double h, std::string_view fill, std::string_view tip = {});
  void line(double x1, double y1, double x2, double y2, bool dashed = false);
  void path(const std::vector<std::pair<double, double>>& points, std::string_view colour, bool dashed = false);
  void dot(double x, double y, std::string_view fill, std::string_view tip);
  enum class Anchor { start, middle, end };
  void text(double x, double y, std::string_view text, Anchor anchor = Anchor::start, bool faint = false);
  std::string done() const;

 private:
  std::string out_;
};

}  // namespace lacuna::cli
