// SPDX-License-Identifier: Apache-2.0
#include "cli/page/html.h"

#include <iterator>

#include <fmt/format.h>

namespace lacuna::cli {
namespace {

// The colours go by Okabe and Ito, darkened for light pages and lightened for dark ones.
constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--ink:#1b1b1b;--faint:#5c5c5c;--line:#d5d5d5;--page:#fff;--card:#f6f6f4;--grey:#76766f;
--c0:#0068a8;--c1:#b07a00;--c2:#007f5c;--c3:#b0508c;--c4:#2f8ac8;--c5:#c8430a}
@media(prefers-color-scheme:dark){:root{--ink:#e8e8e6;--faint:#a9a9a6;--line:#444;--page:#161616;--card:#202020;--grey:#9a9a94;
--c0:#4a9fe0;--c1:#e8aa20;--c2:#22b98c;--c3:#e08fc0;--c4:#9ad4ff;--c5:#ff7a3d}}
body{margin:0 auto;max-width:60rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page)}
h1{font-size:1.5rem;line-height:1.25}h2{font-size:1.2rem;margin:2rem 0 .3rem}h3{font-size:1rem;margin:0 0 .3rem}
.faint,figcaption{color:var(--faint);font-size:.9rem}
.partial{border:2px solid var(--c5);border-radius:.5rem;padding:.4rem .8rem}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,23rem),1fr));gap:.8rem;margin:.8rem 0}
figure{margin:0;padding:.7rem;background:var(--card);border-radius:.5rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--ink);font:12px system-ui,sans-serif}svg text.faint{fill:var(--faint);font-size:12px}
svg .rule,svg .cell{stroke:var(--line)}svg .ideal{stroke:var(--faint);stroke-dasharray:5 4;fill:none}svg .ring{stroke:var(--ink);fill:none;stroke-width:1.5}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}td{white-space:nowrap}
th{vertical-align:bottom}td{vertical-align:baseline}td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:6rem}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid var(--line)}th:first-child,td:first-child{text-align:left}
.words{text-align:left!important;white-space:normal;min-width:14rem}.words.short{min-width:6rem}
.keys{display:flex;flex-wrap:wrap;gap:.1rem 1rem;font-size:.85rem;margin:.3rem 0;overflow-wrap:anywhere}
.keys svg{display:inline-block;width:30px;height:12px;margin-right:.35em}
.keys i{display:inline-block;width:.8em;height:.8em;margin-right:.35em;border-radius:.15em}
@media print{table{font-size:.7rem}th,td{padding:.15rem .25rem}.pictures{grid-template-columns:1fr 1fr}:root{--ink:#000;--faint:#444;--line:#bbb;--page:#fff;--card:#fff;--grey:#6c6c66;
--c0:#0068a8;--c1:#b07a00;--c2:#007f5c;--c3:#b0508c;--c4:#2f8ac8;--c5:#c8430a}
body{print-color-adjust:exact;-webkit-print-color-adjust:exact}figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}
)";

constexpr std::string_view kColours[] = {"var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)"};

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

}  // namespace lacuna::cli
