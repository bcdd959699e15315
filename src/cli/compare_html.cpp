// SPDX-License-Identifier: Apache-2.0
#include "cli/compare_html.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare_figures.h"
#include "cli/compare_table.h"
#include "cli/html.h"

namespace lacuna::cli {
namespace {

using Json = nlohmann::ordered_json;
using Anchor = Svg::Anchor;

std::string name_of(const Json& run) { return run["method"].get<std::string>(); }
std::string plain(std::optional<double> x, const char* format) { return x ? fmt::format(fmt::runtime(format), *x) : "-"; }
std::string share(std::optional<double> x) { return x ? fmt::format("{:.2f} %", 100 * *x) : "-"; }

// Runs that worked, with those of Lacuna numbered alike in all pictures.
struct Shown {
  const Json* run;
  std::string name;
  std::string_view colour;
};

std::vector<Shown> shown(const Json& document) {
  std::vector<Shown> list;
  for (const Json& run : document["runs"])
    if (worked(run)) list.push_back({&run, name_of(run), html_colour(list.size())});
  return list;
}

std::string figure_of(const Svg& picture, std::string_view caption) {
  return fmt::format("<figure>\n{}<figcaption>{}</figcaption>\n</figure>\n", picture.done(), caption);
}

// Where the time to the first token goes: one bar per run, Lacuna's steps and the rest.
std::string time_bars(const std::vector<Shown>& runs) {
  struct Step {
    const char *key, *words;
  };
  static constexpr Step kSteps[] = {{"estimate", "estimate"}, {"budget", "budget"}, {"attend", "attend"}, {"account", "audit"}};
  constexpr std::size_t kRest = 6;  // colour: grey
  constexpr double kWidth = 760, kRow = 44, kRight = 70;
  double most = 0;
  for (const Shown& r : runs) most = std::max(most, *figure(*r.run, "/ttft_s"));
  Svg svg(kWidth, kRow * static_cast<double>(runs.size()) + 4, "Bars: seconds to the first token of each method, split into the steps of attention and the rest.");
  const double scale = (kWidth - kRight) / std::max(most, 1e-9);
  double y = 0;
  for (const Shown& r : runs) {
    const double whole = *figure(*r.run, "/ttft_s");
    svg.text(0, y + 14, r.name);
    double x = 0;
    for (std::size_t i = 0; i < std::size(kSteps); ++i) {
      // Steps of writing come after the first token.
      const auto all = figure(*r.run, fmt::format("/attention_s/{}", kSteps[i].key).c_str());
      const auto writing = figure(*r.run, fmt::format("/attention_s_decode/{}", kSteps[i].key).c_str());
      const double s = std::clamp(all.value_or(0) - writing.value_or(0), 0.0, whole);
      if (s > 0) svg.rect(x, y + 19, s * scale, 16, html_colour(i), fmt::format("{}: {} {:.3f} s", r.name, kSteps[i].words, s));
      x += s * scale;
    }
    const double rest = std::max(0.0, whole * scale - x);
    svg.rect(x, y + 19, rest, 16, html_colour(kRest), fmt::format("{}: the rest {:.3f} s", r.name, rest / scale));
    svg.text(x + rest + 6, y + 32, fmt::format("{:.2f} s", whole));
    y += kRow;
  }
  std::string key;
  const auto entry = [&key](std::size_t colour, std::string_view words) {
    key += fmt::format("<span class=\"key\" style=\"background:{}\"></span>{}", html_colour(colour), words);
  };
  for (std::size_t i = 0; i < std::size(kSteps); ++i) entry(i, kSteps[i].words);
  entry(kRest, "the rest: all of llama.cpp, stock's attention too");
  return figure_of(svg, key);
}

// A plane of density against something else.
struct Plane {
  static constexpr double kWidth = 760, kHeight = 380, kLeft = 60, kRight = 34, kTop = 14, kBottom = 40;
  Svg svg;
  double y_low, y_high;

  Plane(std::string_view what, double low, double high) : svg(kWidth, kHeight, what), y_low(low), y_high(high) {
    for (int i = 0; i <= 10; i += 2) {
      svg.line(x(i / 10.0), kTop, x(i / 10.0), kHeight - kBottom);
      svg.text(x(i / 10.0), kHeight - kBottom + 16, fmt::format("{} %", 10 * i), Anchor::middle, true);
    }
    svg.text(x(0.5), kHeight - 6, "density: query-key pairs kept in the prompt", Anchor::middle, true);
  }
  static double x(double density) { return kLeft + density * (kWidth - kLeft - kRight); }
  double y(double value) const { return kTop + (y_high - value) / (y_high - y_low) * (kHeight - kTop - kBottom); }
  void tick(double value, std::string_view words) {
    svg.line(kLeft, y(value), kWidth - kRight, y(value));
    svg.text(kLeft - 6, y(value) + 4, words, Anchor::end, true);
  }
  struct Point {
    double density, value;
    const Shown* of;
    std::string tip;
  };
  // Names stand beside their dots, moved apart where they would overlap.
  void dots(std::vector<Point> points) {
    std::sort(points.begin(), points.end(), [&](const Point& a, const Point& b) { return a.value > b.value; });
    double last = -1e9;
    for (const Point& p : points) {
      const double at_x = x(p.density), at_y = y(p.value), words = std::max(at_y + 4, last + 14);
      last = words;
      svg.dot(at_x, at_y, p.of->colour, p.tip);
      const bool left = p.density > 0.6;
      const double beside = at_x + (left ? -9 : 9);
      if (words > at_y + 5) svg.line(at_x, at_y, beside, words - 4);
      svg.text(beside, words, p.of->name, left ? Anchor::end : Anchor::start);
    }
  }
};

std::string loss_picture(const std::vector<Shown>& runs) {
  constexpr double kFloor = 1e-4;  // what rounding leaves: below, nothing was measurably lost
  Plane plane("Dots: mean lost mass of each method against its density, on a logarithmic scale.", std::log10(kFloor), 0);
  for (const auto& [value, words] : {std::pair{1.0, "100 %"}, {0.1, "10 %"}, {0.01, "1 %"}, {1e-3, "0.1 %"}, {kFloor, "0.01 %"}})
    plane.tick(std::log10(value), words);
  std::vector<Plane::Point> points;
  for (const Shown& r : runs)
    if (const auto density = figure(*r.run, "/density/prefill"), lost = figure(*r.run, "/lost_mass/mean"); density && lost)
      points.push_back({*density, std::log10(std::clamp(*lost, kFloor, 1.0)), &r,
                        fmt::format("{}: density {}, lost {}", r.name, share(density), share(lost))});
  if (points.empty()) return "";
  // Nobody keeps less and loses less than these.
  std::vector<Plane::Point> sorted = points;
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return std::pair(a.density, a.value) < std::pair(b.density, b.value); });
  std::vector<std::pair<double, double>> front;
  double best = 1;
  for (const auto& p : sorted)
    if (p.value < best) {
      best = p.value;
      front.emplace_back(Plane::x(p.density), plane.y(p.value));
    }
  plane.svg.path(front, html_colour(6), true);
  plane.dots(std::move(points));
  return figure_of(plane.svg, "Mean lost attention mass in the prompt. Dashed: methods beside which no other keeps less and loses less. "
                              "Below 0.01 % nothing is measurable.");
}

std::string speed_picture(const std::vector<Shown>& runs, const Json* dense) {
  if (!dense) return "";
  const auto seconds = [](const Json& run) {
    double s = 0;
    for (const char* step : {"estimate", "budget", "attend", "correct"})
      s += figure(run, fmt::format("/attention_s/{}", step).c_str()).value_or(0) -
           figure(run, fmt::format("/attention_s_decode/{}", step).c_str()).value_or(0);
    return s;
  };
  const double base = seconds(*dense);
  std::vector<Plane::Point> points;
  double high = 2;
  for (const Shown& r : runs) {
    const auto density = figure(*r.run, "/density/prefill");
    const double s = seconds(*r.run);
    if (!density || s <= 0 || base <= 0) continue;
    points.push_back({*density, base / s, &r, fmt::format("{}: {:.2f} times dense's speed at density {}", r.name, base / s, share(density))});
    high = std::max(high, 1.2 * base / s);
  }
  if (points.empty()) return "";
  Plane plane("Dots: how many times faster than dense each method's attention is, against its density; a dashed line shows the ideal.", 0, high);
  const double step = high > 8 ? 2 : high > 4 ? 1 : 0.5;
  for (double v = 0; v <= high; v += step) plane.tick(v, fmt::format("{:g}x", v));
  std::vector<std::pair<double, double>> ideal;
  for (double d = 1; d >= 1 / high; d -= 0.01) ideal.emplace_back(Plane::x(d), plane.y(1 / d));
  plane.svg.path(ideal, html_colour(6), true);
  plane.dots(std::move(points));
  return figure_of(plane.svg, "Attention in the prompt, choosing included, against Lacuna's own dense attention. Dashed: what density alone would give.");
}

std::string table(const Json& document) {
  std::string out = "<div class=\"scroll\"><table>\n<tr>";
  for (const char* head : {"method", "first token", "against stock", "tokens/s", "density", "lost", "at most", "KL to stock", "same token", "KV read / token", "memory"})
    out += fmt::format("<th>{}</th>", head);
  out += "</tr>\n";
  const Json* stock = find_run(document, "stock");
  for (const Json& run : document["runs"]) {
    out += fmt::format("<tr><td>{}</td>", html_escape(name_of(run)));
    if (!worked(run)) {
      const Json& why = run["error"];
      out += fmt::format("<td colspan=\"10\" style=\"text-align:left\">did not run: {}</td></tr>\n",
                         html_escape(why.is_string() ? one_line(why.get<std::string>(), 400) : "interrupted"));
      continue;
    }
    const auto ttft = figure(run, "/ttft_s"), read = figure(run, "/kv_bytes_read_per_token"), memory = figure(run, "/peak_rss_bytes");
    const auto speedup = stock ? std::optional(*figure(*stock, "/ttft_s") / *ttft) : std::nullopt;
    for (const std::string& cell :
         {plain(ttft, "{:.2f} s"), plain(speedup, "{:.2f}x"), plain(figure(run, "/decode_tok_s"), "{:.1f}"), share(figure(run, "/density/prefill")),
          share(lost_mass(run)), share(figure(run, "/lost_mass/upper")), plain(figure(run, "/kl_mean"), "{:.1e}"),
          share(figure(run, "/same_top_share")), read ? human_bytes(*read) : "-", memory ? human_bytes(*memory) : "-"})
      out += fmt::format("<td>{}</td>", cell);
    out += "</tr>\n";
  }
  if (const Json& floor = document["floor"]; floor.is_object() && figure(floor, "/kl_mean"))
    out += fmt::format("<tr><td>(floor)</td><td colspan=\"6\"></td><td>{}</td><td>{}</td><td></td><td></td></tr>\n",
                       plain(figure(floor, "/kl_mean"), "{:.1e}"), share(figure(floor, "/same_top_share")));
  return out + "</table></div>\n";
}

std::string answers(const std::vector<Shown>& runs) {
  std::string out = "<div class=\"scroll\"><table>\n";
  for (const Shown& r : runs)
    out += fmt::format("<tr><td>{}</td><td style=\"text-align:left;white-space:normal\">{}</td></tr>\n", html_escape(r.name),
                       html_escape(one_line((*r.run)["text"].get<std::string>(), 600)));
  return out + "</table></div>\n";
}

}  // namespace

std::string compare_html(const Json& document) {
  const auto runs = shown(document);
  std::string body = "<h1>Lacuna: methods beside each other</h1>\n";
  body += fmt::format("<p>{}</p>\n", html_escape(compare_sentence(document)));
  if (!runs.empty()) {
    const Json& first = *runs.front().run;
    const std::string model = first["model"].get<std::string>();
    std::string kernel;
    for (const Shown& r : runs)
      if ((*r.run)["kernel"].is_string()) kernel = ", kernel " + (*r.run)["kernel"].get<std::string>();
    body += fmt::format("<p class=\"faint\">{}; {} tokens read; {}{}</p>\n", html_escape(model.substr(model.find_last_of('/') + 1)),
                        first["prompt_tokens"].get<std::int64_t>(), html_escape(first["host"].get<std::string>()), html_escape(kernel));
  }
  body += "<h2>Figures</h2>\n" + table(document);
  body += "<p class=\"faint\">lost: mean attention mass left out, of the prompt or while writing, whichever is more; at most: a bound of the "
          "prompt's mean, with 95 % confidence. KL and same token: against stock llama.cpp; floor: stock without flash attention.</p>\n";
  if (!runs.empty()) body += "<h2>Time to the first token</h2>\n" + time_bars(runs);
  if (const std::string p = loss_picture(runs); !p.empty()) body += "<h2>Loss against density</h2>\n" + p;
  if (const std::string p = speed_picture(runs, find_run(document, "dense")); !p.empty()) body += "<h2>Speed of attention against density</h2>\n" + p;
  if (!runs.empty()) body += "<h2>Answers</h2>\n" + answers(runs);
  return html_page("Lacuna: methods beside each other", body);
}

}  // namespace lacuna::cli
