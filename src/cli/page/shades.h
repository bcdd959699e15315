// SPDX-License-Identifier: Apache-2.0
// Maps of cells in shades of one colour: rows of digits, 0 (nothing) to 9 (all).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/page/svg.h"

namespace lacuna::cli {

using Digits = std::vector<std::string>;

// The rows of a JSON array of texts, cut to kMostCells rows and columns; empty if it is none.
constexpr std::size_t kMostCells = 256;
Digits digits_of(const nlohmann::ordered_json& rows);

// The digit at a place; 0 where there is none.
int digit_at(const Digits& rows, std::size_t row, std::size_t column);

// Cells of w x h from (x, y) on, row by row; one shape per shade.
void draw_shades(Svg& svg, const Digits& rows, double x, double y, double w, double h, std::string_view colour);

// What explains them below a picture: shades for the given digits, each with its words.
std::string shade_keys(std::string_view colour, const std::vector<std::pair<int, std::string>>& words);

}  // namespace lacuna::cli
