// SPDX-License-Identifier: Apache-2.0
// What the pictures of compare share: how a method looks, a frame with two axes, lines over lengths, bars in pieces.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/svg.h"

namespace lacuna::cli {

// A method looks the same in every picture: colour, mark and dashes, so that none is told by its colour alone.
struct Series {
  std::string name;
  std::size_t number = 0;  // in the document's methods
  std::string_view colour() const;
  std::size_t mark() const;
  std::string_view dashes() const;
};
std::vector<Series> series_of(const nlohmann::ordered_json& document);
// The run of a method at a length, if it worked.
const nlohmann::ordered_json* run_of(const nlohmann::ordered_json& length, const Series& method);

// <figure> with an id, a heading, the picture, its keys and a caption.
std::string figure_html(std::string_view id, std::string_view title, const Svg& picture, std::string_view keys,
                        std::string_view caption);
std::string keys_of(const std::vector<Series>& series);

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

// A figure of each method by length, e.g. its speed-up.
struct Lines {
  std::string id, title, what, caption;
  std::function<std::optional<double>(const nlohmann::ordered_json& length, const nlohmann::ordered_json& run)> value;
  std::string axis = "tokens of text";
  bool bytes = false;  // ticks in MiB and so on, else `unit` behind the number
  std::string unit = {};
  std::optional<double> ideal = std::nullopt;  // a dashed line there
  bool from_zero = true;                       // the axis begins at 0, else below the lowest line
  bool cross = false;                          // ring where a line first rises above dense's
  bool without_stock = false;
};
// "" with fewer than two lengths to show.
std::string lines_picture(const nlohmann::ordered_json& document, const Lines& lines);

// Pieces of a bar, in seconds; one bar per method.
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
