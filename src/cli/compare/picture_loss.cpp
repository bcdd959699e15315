// SPDX-License-Identifier: Apache-2.0
// Lost mass against density, and the methods that nobody beats in both.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/page/chart.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

constexpr double kFloor = 1e-4;  // what rounding leaves: below, nothing was measurably lost

struct Dot {
  double density, log_loss;
  Series of;
  std::string tip;
};

// Nobody keeps less and loses less than these.
std::vector<Dot> front_of(std::vector<Dot> dots) {
  std::sort(dots.begin(), dots.end(), [](const Dot& a, const Dot& b) {
    return std::pair(a.density, a.log_loss) < std::pair(b.density, b.log_loss);
  });
  std::vector<Dot> front;
  for (const Dot& d : dots)
    if (front.empty() || d.log_loss < front.back().log_loss) front.push_back(d);
  return front;
}

}  // namespace

std::string loss_picture(const Json& document, const Json& length) {
  std::vector<Dot> dots;
  std::vector<Series> keys;
  for (const Series& s : series_of(document)) {
    const Json* run = run_of(length, s);
    if (!run) continue;
    const auto density = figure(*run, "/density/prefill"), lost = figure(*run, "/lost_mass/mean");
    if (!density || !lost) continue;
    dots.push_back({*density, std::log10(std::clamp(*lost, kFloor, 1.0)), s,
                    fmt::format("{}: density {}, lost {}", s.name, share(density), share(lost))});
    keys.push_back(s);
  }
  if (dots.empty()) return "";
  Chart chart("Marks: mean lost mass of each method against its density, on a logarithmic scale.",
              "density: query-key pairs kept in the prompt", 0, 1, std::log10(kFloor), 0);
  for (int i = 0; i <= 100; i += 20) chart.tick_x(i / 100.0, fmt::format("{} %", i));
  for (const auto& [value, words] :
       {std::pair{1.0, "100 %"}, {0.1, "10 %"}, {0.01, "1 %"}, {1e-3, "0.1 %"}, {kFloor, "0.01 %"}})
    chart.tick_y(std::log10(value), words);
  Points front;
  for (const Dot& d : front_of(dots)) front.emplace_back(chart.x(d.density), chart.y(d.log_loss));
  chart.svg.ideal(front);
  for (const Dot& d : dots) chart.svg.mark(d.of.mark(), chart.x(d.density), chart.y(d.log_loss), d.of.colour(), d.tip);
  return figure_html(
      "loss", "Lost mass against density", chart.svg, keys_of(keys),
      "Mean lost attention mass in the prompt. Dashed: methods beside which no other keeps less and loses less. "
      "At 0.01 % and below nothing is measurable.");
}

}  // namespace lacuna::cli
