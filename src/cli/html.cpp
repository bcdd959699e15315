// SPDX-License-Identifier: Apache-2.0
#include "cli/html.h"

#include <fmt/format.h>

namespace lacuna::cli {
namespace {

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--ink:#1b1b1b;--faint:#666;--line:#d5d5d5;--page:#fff;--card:#f6f6f4}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--faint:#a3a3a0;--line:#444;--page:#161616;--card:#202020}}
@media print{:root{--ink:#000;--faint:#555;--line:#bbb;--page:#fff;--card:#fff}figure,tr{break-inside:avoid}}
body{margin:0 auto;max-width:58rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page)}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.1rem;margin:2rem 0 .3rem}
.faint,figcaption{color:var(--faint);font-size:.9rem}
figure{overflow-x:auto;margin:.5rem 0 0;padding:.6rem;background:var(--card);border-radius:.5rem}
svg{width:100%;min-width:38rem;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg text.faint{fill:var(--faint);font-size:12px}
svg .rule{stroke:var(--line)}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;white-space:nowrap}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;border-radius:.15em}
)";

constexpr std::string_view kColours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a8a86"};

}  // namespace

std::string html_escape(std::string_view text) {
  std::string out;
  for (const char c : text) switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  return out;
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>{}</style>\n</head>\n"
      "<body>\n{}</body>\n</html>\n",
      html_escape(title), kStyle, body);
}

std::string_view html_colour(std::size_t i) { return kColours[i % std::size(kColours)]; }

Svg::Svg(double width, double height, std::string_view what)
    : out_(fmt::format("<svg viewBox=\"0 0 {:g} {:g}\" role=\"img\" aria-label=\"{}\">\n", width, height, html_escape(what))) {}

void Svg::rect(double x, double y, double w, double h, std::string_view fill, std::string_view tip) {
  out_ += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"><title>{}</title></rect>\n", x, y, w, h,
                      fill, html_escape(tip));
}

void Svg::line(double x1, double y1, double x2, double y2, bool dashed) {
  out_ += fmt::format("<line class=\"rule\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"{}/>\n", x1, y1, x2, y2,
                      dashed ? " stroke-dasharray=\"4 4\"" : "");
}

void Svg::path(const std::vector<std::pair<double, double>>& points, std::string_view colour, bool dashed) {
  out_ += "<polyline fill=\"none\" points=\"";
  for (const auto& [x, y] : points) out_ += fmt::format("{:.1f},{:.1f} ", x, y);
  out_ += fmt::format("\" stroke=\"{}\"{}/>\n", colour, dashed ? " stroke-dasharray=\"5 4\"" : "");
}

void Svg::dot(double x, double y, std::string_view fill, std::string_view tip) {
  out_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill=\"{}\"><title>{}</title></circle>\n", x, y, fill, html_escape(tip));
}

void Svg::text(double x, double y, std::string_view text, Anchor anchor, bool faint) {
  constexpr std::string_view kAnchors[] = {"start", "middle", "end"};
  out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, kAnchors[static_cast<int>(anchor)],
                      faint ? " class=\"faint\"" : "", html_escape(text));
}

std::string Svg::done() const { return out_ + "</svg>\n"; }

}  // namespace lacuna::cli
