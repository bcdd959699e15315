// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/series.h"

#include <iterator>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/page/html.h"
#include "cli/page/svg.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

static constexpr std::size_t kColours = 6;

std::string_view Series::colour() const {
  if (name == "stock") return kGrey;
  if (name == "dense") return kInk;
  const std::size_t k = number >= 2 ? number - 2 : number;
  return html_colour(k + k / kColours);
}

std::size_t Series::mark() const { return number < 2 ? number : 2 + (number - 2) % (Svg::kMarks - 2); }

std::string_view Series::dashes() const {
  static constexpr std::string_view kDashes[] = {"", "7 3", "2 3"};
  return number < 2 ? "" : kDashes[(number - 2) / kColours % std::size(kDashes)];
}

std::vector<Series> series_of(const Json& document) {
  std::vector<Series> list;
  for (const Json& method : document["methods"]) list.push_back({method.get<std::string>(), list.size()});
  return list;
}

const Json* run_of(const Json& length, const Series& method) { return find_run(length, method.name); }

std::string keys_of(const std::vector<Series>& series) {
  std::string out;
  for (const Series& s : series) {
    Svg key(30, 12, "");
    key.path({{0, 6}, {30, 6}}, s.colour(), s.dashes());
    key.mark(s.mark(), 15, 6, s.colour());
    out += fmt::format("<span>{}{}</span>\n", key.done(), html_escape(s.name));
  }
  return out;
}

}  // namespace lacuna::cli
