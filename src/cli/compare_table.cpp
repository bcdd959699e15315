// SPDX-License-Identifier: Apache-2.0
#include "cli/compare_table.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare_figures.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kNameColumns = 15;

std::string plain(std::optional<double> x, const char* format) { return x ? fmt::format(fmt::runtime(format), *x) : "-"; }
std::string share(std::optional<double> x) { return x ? fmt::format("{:.2f} %", 100 * *x) : "-"; }

// "2.1 times sooner than dense (1.23 s)"; one run of each tells less than a twentieth from nothing.
std::string against(double seconds, const Json& other, std::string_view name) {
  const double theirs = *figure(other, "/ttft_s"), ratio = std::max(seconds, theirs) / std::min(seconds, theirs);
  if (ratio < 1.05) return fmt::format("about as soon as {} ({:.2f} s)", name, theirs);
  return fmt::format("{:.1f} times {} than {} ({:.2f} s)", ratio, seconds <= theirs ? "sooner" : "later", name, theirs);
}

}  // namespace

std::string compare_table(const Json& document) {
  std::string out;
  // The widths add up to 80 columns with the blanks between.
  const auto row = [&out](std::string_view name, const std::vector<std::string>& cells) {
    static constexpr int widths[] = {7, 8, 7, 9, 8, 8, 8};
    std::string line = fmt::format("{:<{}}", name, kNameColumns);
    for (std::size_t i = 0; i < cells.size(); ++i) line += fmt::format(" {:>{}}", cells[i], widths[i]);
    out += line + "\n";
  };
  row("method", {"TTFT s", "speed-up", "tok/s", "density", "lost", "KL", "same top"});
  const Json* stock = find_run(document, "stock");
  for (const Json& run : document["runs"]) {
    std::string name = run["method"].get<std::string>();
    if (name.size() > kNameColumns) {  // a long spec stands on a line of its own
      out += name + "\n";
      name.clear();
    }
    if (!worked(run)) {
      const Json& why = run["error"];
      out += fmt::format("{:<{}} did not run: {}\n", name, kNameColumns,
                         why.is_string() ? one_line(why.get<std::string>(), 400) : "interrupted");
      continue;
    }
    const auto ttft = figure(run, "/ttft_s");
    const auto speedup = stock ? std::optional<double>(*figure(*stock, "/ttft_s") / *ttft) : std::nullopt;
    row(name, {plain(ttft, "{:.2f}"), plain(speedup, "{:.2f}x"), plain(figure(run, "/decode_tok_s"), "{:.1f}"),
               share(figure(run, "/density/prefill")), share(lost_mass(run)),
               plain(figure(run, "/kl_mean"), "{:.1e}"), share(figure(run, "/same_top_share"))});
    const std::string words = one_line(run["text"].get<std::string>(), 72);
    out += dim(fmt::format("  \"{}\"", words)) + "\n";
  }
  if (const Json& floor = document["floor"]; floor.is_object() && figure(floor, "/kl_mean"))
    row("(floor)", {"", "", "", "", "", plain(figure(floor, "/kl_mean"), "{:.1e}"), share(figure(floor, "/same_top_share"))});
  return out;
}

std::string compare_sentence(const Json& document) {
  const Json* const stock = find_run(document, "stock");
  const Json* const dense = find_run(document, "dense");
  const Json* best = nullptr;
  bool any = false;  // did any sparse method run at all
  for (const Json& run : document["runs"]) {
    if (!worked(run) || run["method"] == "stock" || run["method"] == "dense") continue;
    any = true;
    const auto lost = lost_mass(run);
    if (!lost || *lost > kAllowedLoss) continue;
    if (!best || *figure(run, "/ttft_s") < *figure(*best, "/ttft_s")) best = &run;
  }
  const bool sparse = best != nullptr;
  if (!sparse) best = dense;
  if (!best) return any ? "No method stayed within 1 % lost mass, and dense did not run." : "No method of Lacuna ran, so there is nothing to compare.";
  const double ttft = *figure(*best, "/ttft_s");
  std::string s = sparse ? fmt::format("{}, the fastest within 1 % lost mass, gave", (*best)["method"].get<std::string>())
                         : std::string(any ? "No method stayed within 1 % lost mass; dense gave" : "Dense gave");
  s += fmt::format(" the first token after {:.2f} s", ttft);
  if (stock) s += ", " + against(ttft, *stock, "stock llama.cpp");
  if (sparse && dense) s += fmt::format("{}{}", stock ? " and " : ", ", against(ttft, *dense, "dense"));
  if (sparse) s += fmt::format("; it lost {} of the attention mass", share(lost_mass(*best)));
  if (const auto same = figure(*best, "/same_top_share"))
    s += fmt::format("{} chose stock's next token at {} of the positions", sparse ? " and" : "; it", share(same));
  const auto floor = document["floor"].is_object() ? figure(document["floor"], "/same_top_share") : std::nullopt;
  if (floor && figure(*best, "/same_top_share")) s += fmt::format(" (stock without flash attention: {})", share(floor));
  return s + ".";
}

}  // namespace lacuna::cli
