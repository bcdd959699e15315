// SPDX-License-Identifier: Apache-2.0
#include "cli/page/svg.h"

#include <fmt/format.h>

#include "cli/page/html.h"

namespace lacuna::cli {
namespace {

// Circle, square, triangles, diamond, plus, cross, star: around (0, 0).
constexpr std::string_view kShapes[Svg::kMarks] = {
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z",
    "M-4,-4h8v8h-8z",
    "M0,-5.5L5,4H-5z",
    "M0,-5.5L5.5,0L0,5.5L-5.5,0z",
    "M0,5.5L5,-4H-5z",
    "M-1.7,-5.2h3.4v3.5h3.5v3.4h-3.5v3.5h-3.4v-3.5h-3.5v-3.4h3.5z",
    "M-2.4,-4.9L0,-2.4L2.4,-4.9L4.9,-2.4L2.4,0L4.9,2.4L2.4,4.9L0,2.4L-2.4,4.9L-4.9,2.4L-2.4,0L-4.9,-2.4z",
    "M0,-6L1.7,-1.9L6,-1.8L2.7,1L3.8,5.2L0,2.8L-3.8,5.2L-2.7,1L-6,-1.8L-1.7,-1.9z"};

std::string title(std::string_view tip) {
  return tip.empty() ? "" : fmt::format("<title>{}</title>", html_escape(tip));
}

std::string joined(const Points& points) {
  std::string out;
  for (const auto& [x, y] : points) out += fmt::format("{:.1f},{:.1f} ", x, y);
  return out;
}

}  // namespace

Svg::Svg(double width, double height, std::string_view what)
    : out_(fmt::format(
          "<svg viewBox=\"0 0 {:g} {:g}\" {}>\n", width, height,
          what.empty() ? "aria-hidden=\"true\"" : fmt::format("role=\"img\" aria-label=\"{}\"", html_escape(what)))) {}

void Svg::rect(double x, double y, double w, double h, std::string_view fill, std::string_view tip) {
  out_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\">{}</rect>\n", x,
                      y, w, h, fill, title(tip));
}

void Svg::cell(double x, double y, double w, double h, double value, std::string_view words, std::string_view tip) {
  constexpr double kStrongest = 0.6;  // words stay legible on it, in light and in dark
  out_ += fmt::format(
      "<rect class=\"cell\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" "
      "fill-opacity=\"{:.2f}\">{}</rect>\n",
      x, y, w, h, html_colour(0), kStrongest * value, title(tip));
  text(x + w / 2, y + h / 2 + 4, words, Anchor::middle);
}

void Svg::boxes(const std::vector<Box>& boxes, std::string_view colour, double opacity) {
  if (boxes.empty()) return;
  std::string d;
  for (const Box& b : boxes) d += fmt::format("M{:.1f},{:.1f}h{:.1f}v{:.1f}h-{:.1f}z", b.x, b.y, b.w, b.h, b.w);
  out_ += fmt::format("<path shape-rendering=\"crispEdges\" fill=\"{}\" fill-opacity=\"{:.2f}\" d=\"{}\"/>\n", colour, opacity, d);
}

void Svg::rule(double x1, double y1, double x2, double y2) {
  out_ +=
      fmt::format("<line class=\"rule\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1, x2, y2);
}

void Svg::path(const Points& points, std::string_view colour, std::string_view dashes) {
  out_ += fmt::format("<polyline fill=\"none\" stroke-width=\"2\" points=\"{}\" stroke=\"{}\"{}/>\n", joined(points),
                      colour, dashes.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", dashes));
}

void Svg::ideal(const Points& points) {
  out_ += fmt::format("<polyline class=\"ideal\" points=\"{}\"/>\n", joined(points));
}

void Svg::mark(std::size_t shape, double x, double y, std::string_view colour, std::string_view tip) {
  out_ += fmt::format("<path transform=\"translate({:.1f},{:.1f})\" d=\"{}\" fill=\"{}\">{}</path>\n", x, y,
                      kShapes[shape % kMarks], colour, title(tip));
}

void Svg::ring(double x, double y, std::string_view tip) {
  out_ += fmt::format("<circle class=\"ring\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"8\">{}</circle>\n", x, y, title(tip));
}

void Svg::text(double x, double y, std::string_view text, Anchor anchor, bool faint) {
  constexpr std::string_view kAnchors[] = {"start", "middle", "end"};
  out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                      kAnchors[static_cast<int>(anchor)], faint ? " class=\"faint\"" : "", html_escape(text));
}

std::string Svg::done() const { return out_ + "</svg>\n"; }

}  // namespace lacuna::cli
