// SPDX-License-Identifier: Apache-2.0
// Lines over lengths.
#include <algorithm>
#include <cmath>
#include <iterator>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/compare/series.h"
#include "cli/lengths.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

struct Drawn {
  Series of;
  Points points;  // tokens, value
};

// Where a line first rises above another, in the chart's coordinates, where both are straight between lengths.
// `x`: the same for both; a length one of them lacks is left out.
struct Crossing {
  bool found = false, from_start = false;
  double tokens = 0, value = 0;
};

Crossing first_above(const Points& line, const Points& other) {
  Crossing c;
  std::optional<std::pair<double, double>> before;  // log2 of tokens, how far above
  double value_before = 0;
  for (const auto& [tokens, value] : line) {
    const auto there = std::find_if(other.begin(), other.end(), [t = tokens](const auto& p) { return p.first == t; });
    if (there == other.end()) continue;
    const double above = value - there->second, at = std::log2(tokens);
    if (above > 0) {
      c.found = true;
      c.from_start = !before;
      const double part = before ? -before->second / (above - before->second) : 1;
      c.tokens = before ? std::exp2(before->first + part * (at - before->first)) : tokens;
      c.value = before ? value_before + part * (value - value_before) : value;
      return c;
    }
    before = {at, above};
    value_before = value;
  }
  return c;
}

// 1,400 rather than 1,387: it stands between two measurements.
std::string about(double tokens) {
  const double unit = std::pow(10, std::max(0.0, std::floor(std::log10(tokens)) - 1));
  return length_words(std::llround(std::round(tokens / unit) * unit));
}

std::string crossings(Chart& chart, const std::vector<Drawn>& drawn) {
  const auto dense = std::find_if(drawn.begin(), drawn.end(), [](const Drawn& d) { return d.of.name == "dense"; });
  if (dense == drawn.end()) return "";
  std::vector<std::pair<std::string, std::string>> where;  // words, the methods they hold for
  for (const Drawn& d : drawn) {
    if (d.of.name == "stock" || d.of.name == "dense") continue;
    const Crossing c = first_above(d.points, dense->points);
    std::string words = "at none of these lengths";
    if (c.found)
      words = c.from_start ? "from the shortest length on" : fmt::format("from about {} tokens on", about(c.tokens));
    if (c.found && !c.from_start)
      chart.svg.ring(chart.x(std::log2(c.tokens)), chart.y(c.value),
                     fmt::format("{} passes dense {}", d.of.name, words));
    auto same = std::find_if(where.begin(), where.end(), [&](const auto& w) { return w.first == words; });
    if (same == where.end())
      where.emplace_back(words, html_escape(d.of.name));
    else
      same->second += ", " + html_escape(d.of.name);
  }
  std::string out;
  for (const auto& [words, methods] : where) out += fmt::format("{}{}: {}", out.empty() ? "" : "; ", words, methods);
  return out.empty() ? "" : fmt::format(" Sooner than dense (a ring where the lines cross) {}.", out);
}

// The unit in which ticks for up to `high` bytes are round: MiB, and its bytes.
std::pair<std::string, double> byte_unit(double high) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t u = 0;
  double bytes = 1;
  for (; high / bytes >= 1024 && u + 1 < std::size(kUnits); ++u) bytes *= 1024;
  return {std::string(" ") + kUnits[u], bytes};
}

// Lengths whose words would overlap have none.
void length_ticks(Chart& chart, const std::vector<double>& tokens) {
  constexpr double kApart = 40;
  double last = -kApart;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const double at = chart.x(std::log2(tokens[i]));
    const bool room = at - last >= kApart;
    chart.tick_x(std::log2(tokens[i]), room ? length_words(std::llround(tokens[i])) : "");
    if (room) last = at;
  }
}

}  // namespace

std::string lines_picture(const Json& document, const Lines& lines) {
  std::vector<Drawn> drawn;
  std::vector<double> tokens;
  double low = lines.from_zero ? 0 : lines.ideal.value_or(1e300), high = lines.ideal.value_or(0);
  for (const Series& s : series_of(document)) {
    if (lines.without_stock && s.name == "stock") continue;
    Drawn d{s, {}};
    for (const Json& length : document["lengths"]) {
      const Json* run = run_of(length, s);
      const auto value = run ? lines.value(length, *run) : std::nullopt;
      if (!value) continue;
      d.points.emplace_back(tokens_of(length), *value);
      tokens.push_back(d.points.back().first);
      low = std::min(low, *value);
      high = std::max(high, *value);
    }
    if (!d.points.empty()) drawn.push_back(std::move(d));
  }
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  if (tokens.size() < 2) return "";

  const auto [unit, size] = lines.bytes ? byte_unit(high) : std::pair(lines.unit, 1.0);
  const std::vector<double> ticks = ticks_over(low / size, high / size);
  const double pad = 0.03 * (std::log2(tokens.back()) - std::log2(tokens.front()));
  Chart chart(lines.what, lines.axis, std::log2(tokens.front()) - pad, std::log2(tokens.back()) + pad,
              ticks.front() * size, ticks.back() * size);
  for (const double t : ticks) chart.tick_y(t * size, fmt::format("{:g}{}", t, unit));
  length_ticks(chart, tokens);
  if (lines.ideal)
    chart.svg.ideal({{Chart::kLeft, chart.y(*lines.ideal)}, {Chart::kWidth - Chart::kRight, chart.y(*lines.ideal)}});
  std::vector<Series> keys;
  for (const Drawn& d : drawn) {
    keys.push_back(d.of);
    Points at;
    for (const auto& [t, value] : d.points) at.emplace_back(chart.x(std::log2(t)), chart.y(value));
    chart.svg.path(at, d.of.colour(), d.of.dashes());
    for (std::size_t i = 0; i < at.size(); ++i)
      chart.svg.mark(d.of.mark(), at[i].first, at[i].second, d.of.colour(),
                     fmt::format("{} at {}: {:.3g}{}", d.of.name, length_words(std::llround(d.points[i].first)),
                                 d.points[i].second / size, unit));
  }
  std::string caption = lines.caption;
  if (lines.cross) caption += crossings(chart, drawn);
  return figure_html(lines.id, lines.title, chart.svg, keys_of(keys), caption);
}

}  // namespace lacuna::cli
