// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/table.h"

#include <algorithm>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/figures.h"
#include "cli/lengths.h"
#include "cli/task/figures.h"
#include "cli/task/table.h"
#include "cli/text.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kNameColumns = 15;

// "2.1 times sooner than dense (1.23 s)"; one run of each tells less than a twentieth from nothing.
std::string against(double seconds, const Json& other, std::string_view name) {
  const double theirs = *figure(other, "/ttft_s"), ratio = std::max(seconds, theirs) / std::min(seconds, theirs);
  if (ratio < 1.05) return fmt::format("about as soon as {} ({:.2f} s)", name, theirs);
  return fmt::format("{:.1f} times {} than {} ({:.2f} s)", ratio, seconds <= theirs ? "sooner" : "later", name, theirs);
}

// The table of one length.
std::string table(const Json& length) {
  std::string out;
  // The widths add up to 80 columns with the blanks between.
  const auto row = [&out](std::string_view name, const std::vector<std::string>& cells) {
    static constexpr int widths[] = {7, 8, 7, 9, 8, 8, 8};
    std::string line = fmt::format("{:<{}}", name, kNameColumns);
    for (std::size_t i = 0; i < cells.size(); ++i) line += fmt::format(" {:>{}}", cells[i], widths[i]);
    out += line + "\n";
  };
  row("method", {"TTFT s", "speed-up", "tok/s", "density", "lost", "KL", "same top"});
  for (const Json& run : length["runs"]) {
    std::string name = run["method"].get<std::string>();
    if (name.size() > kNameColumns) {  // a long spec stands on a line of its own
      out += name + "\n";
      name.clear();
    }
    const std::string words = state_words(run);
    if (!worked(run)) {
      out += paragraph(words, std::string(kNameColumns + 1, ' '), 80).replace(0, name.size(), name);
      continue;
    }
    row(name, {plain(figure(run, "/ttft_s"), "{:.2f}"), plain(speedup(length, run), "{:.2f}x"),
               plain(figure(run, "/decode_tok_s"), "{:.1f}"), share(figure(run, "/density/prefill")),
               share(lost_mass(run)), plain(figure(run, "/kl_mean"), "{:.1e}"), share(figure(run, "/same_top_share"))});
    if (!words.empty()) out += fmt::format("  ({})\n", words);
    if (run.contains("text") && run["text"].is_string())
      out += dim(fmt::format("  \"{}\"", one_line(run["text"].get<std::string>(), 72))) + "\n";
  }
  if (const Json& floor = length["floor"]; floor.is_object() && figure(floor, "/kl_mean"))
    row("(floor)",
        {"", "", "", "", "", plain(figure(floor, "/kl_mean"), "{:.1e}"), share(figure(floor, "/same_top_share"))});
  return out;
}

}  // namespace

std::string compare_sentence(const Json& length) {
  const Json* const stock = find_run(length, "stock");
  const Json* const dense = find_run(length, "dense");
  const Json* best = nullptr;
  bool any = false;  // did any sparse method run at all
  for (const Json& run : length["runs"]) {
    if (!worked(run) || run["method"] == "stock" || run["method"] == "dense") continue;
    any = true;
    const auto lost = lost_mass(run);
    if (!lost || *lost > kAllowedLoss) continue;
    if (!best || *figure(run, "/ttft_s") < *figure(*best, "/ttft_s")) best = &run;
  }
  const bool sparse = best != nullptr;
  if (!sparse) best = dense;
  if (!best)
    return any ? "No method stayed within 1 % lost mass, and dense did not run."
               : "No method of Lacuna ran, so there is nothing to compare.";
  const double ttft = *figure(*best, "/ttft_s");
  std::string s = sparse
                      ? fmt::format("{}, the fastest within 1 % lost mass, gave", (*best)["method"].get<std::string>())
                      : std::string(any ? "No method stayed within 1 % lost mass; dense gave" : "Dense gave");
  s += fmt::format(" the first token after {:.2f} s", ttft);
  if (stock) s += ", " + against(ttft, *stock, "stock llama.cpp");
  if (sparse && dense) s += fmt::format("{}{}", stock ? " and " : ", ", against(ttft, *dense, "dense"));
  if (sparse) s += fmt::format("; it lost {} of the attention mass", share(lost_mass(*best)));
  if (const auto same = figure(*best, "/same_top_share"))
    s += fmt::format("{} chose stock's next token at {} of the positions", sparse ? " and" : "; it", share(same));
  const auto floor = length["floor"].is_object() ? figure(length["floor"], "/same_top_share") : std::nullopt;
  if (floor && figure(*best, "/same_top_share")) s += fmt::format(" (stock without flash attention: {})", share(floor));
  return s + ".";
}

std::string compare_text(const Json& document) {
  if (task::has_task(document)) return task::task_text(document);
  const Json& length = longest(document);
  std::string out;
  if (document["lengths"].size() > 1)
    out = lengths_table(document) + fmt::format("\nAt {} tokens of text:\n\n", length_words(tokens_of(length)));
  out += table(length) + "\n" + compare_sentence(length) + "\n";
  if (const std::string words = partial_words(document); !words.empty()) out += "\n" + bold(words) + "\n";
  return out;
}

}  // namespace lacuna::cli
