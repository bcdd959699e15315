// SPDX-License-Identifier: Apache-2.0
// What pictures share: a figure with its keys, a frame with two axes, bars in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cli/page/svg.h"

namespace lacuna::cli {

// <figure> with an id, a heading, the picture, its keys and a caption.
std::string figure_html(std::string_view id, std::string_view title, const Svg& picture, std::string_view keys,
                        std::string_view caption);

// A frame of 400 x 250 units. `x_words` names the axis below; the heading of the figure says what goes up.
struct Chart {
  static constexpr double kWidth = 400, kHeight = 250, kLeft = 62, kRight = 22, kTop = 12, kBottom = 38;
  Svg svg;
  double x_low, x_high, y_low, y_high;

  Chart(std::string_view what, std::string_view x_words, double x_low, double x_high, double y_low, double y_high);
  double x(double value) const;
  double y(double value) const;
  void tick_x(double value, std::string_view words);  // "" = no words
  void tick_y(double value, std::string_view words);
};

// Round numbers from at most `low` to at least `high`, some four to seven of them.
std::vector<double> ticks_over(double low, double high);

// Pieces of a bar, in seconds; one bar each, below its name.
struct Piece {
  std::string words;
  std::string_view colour;
  double seconds;
};
struct Bar {
  std::string name;
  std::vector<Piece> pieces;
};
std::string bars_picture(std::string_view id, std::string_view title, std::string_view what,
                         const std::vector<Bar>& bars, std::string_view caption);

}  // namespace lacuna::cli
