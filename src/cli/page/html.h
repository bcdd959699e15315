// SPDX-License-Identifier: Apache-2.0
// One HTML page that needs nothing else: no network, no script; light and dark, phone and print.
#pragma once

#include <string>
#include <string_view>

namespace lacuna::cli {

// & < > " as entities.
std::string html_escape(std::string_view text);

// A whole page. `body` is HTML.
std::string html_page(std::string_view title, std::string_view body);

// Six colours that colour-blind people tell apart, by number; the page's style has their values, for light and for
// dark, each with a contrast of 3 or more to what is behind it.
std::string_view html_colour(std::size_t i);
constexpr std::string_view kGrey = "var(--grey)", kInk = "var(--ink)";

}  // namespace lacuna::cli
