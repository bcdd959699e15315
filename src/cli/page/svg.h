// SPDX-License-Identifier: Apache-2.0
// A picture in units of about one CSS pixel, as wide as the page lets it be; text takes the page's colour.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lacuna::cli {

using Points = std::vector<std::pair<double, double>>;

class Svg {
 public:
  Svg(double width, double height,
      std::string_view what);  // `what`: a sentence for those who cannot see it; "" = decoration
  void rect(double x, double y, double w, double h, std::string_view fill, std::string_view tip = {});
  // A field of a map: the stronger the more `value` (0 to 1), with words that say it too.
  void cell(double x, double y, double w, double h, double value, std::string_view words, std::string_view tip);
  // Many rectangles as one shape, of one colour and opacity, with sharp edges; none: nothing.
  struct Box {
    double x, y, w, h;
  };
  void boxes(const std::vector<Box>& boxes, std::string_view colour, double opacity);
  void rule(double x1, double y1, double x2, double y2);
  void path(const Points& points, std::string_view colour, std::string_view dashes = {});
  void ideal(const Points& points);  // a faint dashed line: what could be, or a border
  // One of kMarks shapes, of about 10 units.
  static constexpr std::size_t kMarks = 8;
  void mark(std::size_t shape, double x, double y, std::string_view colour, std::string_view tip = {});
  void ring(double x, double y, std::string_view tip);
  enum class Anchor { start, middle, end };
  void text(double x, double y, std::string_view text, Anchor anchor = Anchor::start, bool faint = false);
  std::string done() const;

 private:
  std::string out_;
};

}  // namespace lacuna::cli
