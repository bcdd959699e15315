// SPDX-License-Identifier: Apache-2.0
// The speed of attention against density, and what density alone would give.
#include <algorithm>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/compare/pictures.h"
#include "cli/compare/series.h"
#include "cli/page/chart.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

std::string density_picture(const Json& document, const Json& length) {
  struct Dot {
    double density, speed;
    Series of;
  };
  const Json* dense = find_run(length, "dense");
  const auto base = dense ? attention_seconds(*dense) : std::nullopt;
  if (!base) return "";
  std::vector<Dot> dots;
  std::vector<Series> keys;
  double high = 2;
  for (const Series& s : series_of(document)) {
    const Json* run = run_of(length, s);
    const auto density = run ? figure(*run, "/density/prefill") : std::nullopt,
               seconds = run ? attention_seconds(*run) : std::nullopt;
    if (!density || !seconds) continue;
    dots.push_back({*density, *base / *seconds, s});
    keys.push_back(s);
    high = std::max(high, 1.2 * dots.back().speed);
  }
  const std::vector<double> ticks = ticks_over(0, high);
  high = ticks.back();
  Chart chart(
      "Marks: how many times faster than dense each method's attention is, against its density; a dashed line shows "
      "the ideal.",
      "density: query-key pairs kept in the prompt", 0, 1, 0, high);
  for (int i = 0; i <= 100; i += 20) chart.tick_x(i / 100.0, fmt::format("{} %", i));
  for (const double t : ticks) chart.tick_y(t, fmt::format("{:g}x", t));
  Points ideal;
  for (double d = 1; d >= 1 / high; d -= 0.01) ideal.emplace_back(chart.x(d), chart.y(1 / d));
  chart.svg.ideal(ideal);
  for (const Dot& d : dots)
    chart.svg.mark(d.of.mark(), chart.x(d.density), chart.y(d.speed), d.of.colour(),
                   fmt::format("{}: {:.2f} times dense's speed at density {}", d.of.name, d.speed, share(d.density)));
  return figure_html("density", "Speed of attention against density", chart.svg, keys_of(keys),
                     "Attention in the prompt, choosing included, against Lacuna's own dense attention. Dashed: what "
                     "density alone would give.");
}

}  // namespace lacuna::cli
