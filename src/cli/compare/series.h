// SPDX-License-Identifier: Apache-2.0
// The methods of compare as its pictures show them, and figures of theirs as lines over lengths.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

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
// What explains their marks below a picture.
std::string keys_of(const std::vector<Series>& series);

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

}  // namespace lacuna::cli
