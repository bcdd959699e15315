// SPDX-License-Identifier: Apache-2.0
#include "cli/task/table.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/document.h"
#include "cli/compare/figures.h"
#include "cli/lengths.h"
#include "cli/task/figures.h"
#include "cli/text.h"

namespace lacuna::cli::task {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kNameColumns = 15, kAtOnce = 4;  // 15 + 4 columns of 15 = 75

// The name of a run's method; a long one on a line of its own.
std::string name_column(const std::string& name) {
  return name.size() > kNameColumns ? fmt::format("{}\n{:{}}", one_line(name, 80), "", kNameColumns)
                                    : fmt::format("{:<{}}", name, kNameColumns);
}

std::string by_length(const Json& document) {
  const Json& lengths = document["lengths"];
  std::string out;
  for (std::size_t first = 0; first < lengths.size(); first += kAtOnce) {
    const std::size_t last = std::min(lengths.size(), first + kAtOnce);
    out += bold(fmt::format("{:<{}}", "score (agrees)", kNameColumns));
    for (std::size_t i = first; i < last; ++i) out += fmt::format(" {:>14}", length_words(tokens_of(lengths[i])));
    out += "\n";
    for (std::size_t m = 0; m < document["methods"].size(); ++m) {
      out += name_column(document["methods"][m].get<std::string>());
      for (std::size_t i = first; i < last; ++i) {
        const Json& run = lengths[i]["runs"].at(m);
        out += fmt::format(
            " {:>14}", worked(run) ? fmt::format("{} ({})", score_words(document, run), agreement_words(run)) : "-");
      }
      out += "\n";
    }
    out += "\n";
  }
  return out;
}

std::string of_length(const Json& document, const Json& length) {
  std::string out = bold(fmt::format("{:<{}} {:>7} {:>7} {:>8} {:>8} {:>9} {:>8} {:>7}", "method", kNameColumns,
                                     of_perplexity(document) ? "ppl" : "score", "agrees", "KL", "same top", "density",
                                     "lost", "TTFT s")) +
                    "\n";
  for (const Json& run : length["runs"]) {
    const std::string name = run["method"].get<std::string>();
    if (!worked(run)) continue;
    out +=
        name_column(name) + fmt::format(" {:>7} {:>7} {:>8} {:>8} {:>9} {:>8} {:>7}\n", score_words(document, run),
                                        agreement_words(run), plain(figure(run, "/kl_mean"), "{:.1e}"),
                                        share(figure(run, "/same_top_share")), share(figure(run, "/density/prefill")),
                                        share(lost_mass(run)), plain(figure(run, "/ttft_s"), "{:.2f}"));
  }
  if (const Json& floor = length["floor"]; floor.is_object() && figure(floor, "/kl_mean"))
    out += fmt::format("{:<{}} {:>7} {:>7} {:>8} {:>8}\n", "(floor)", kNameColumns, "", "",
                       plain(figure(floor, "/kl_mean"), "{:.1e}"), share(figure(floor, "/same_top_share")));
  return out;
}

// Runs without whole figures, and why.
std::string what_is_missing(const Json& document) {
  std::string out;
  for (const Json& length : document["lengths"])
    for (const Json& run : length["runs"])
      if (const std::string words = state_words(run); !words.empty() && run["state"] != kMissing)
        out += paragraph(
            fmt::format("{} at {}: {}", run["method"].get<std::string>(), length_words(tokens_of(length)), words), "  ",
            80);
  return out;
}

}  // namespace

std::string task_text(const Json& document) {
  const Json& task = document["task"];
  const Json& length = longest(document);
  const bool several = document["lengths"].size() > 1;
  std::string out = paragraph(fmt::format("Task {}: {}. {} samples{}; agrees: {}.", task.at("name").get<std::string>(),
                                          task.at("summary").get<std::string>(), task.at("samples").get<int>(),
                                          several ? " of each length" : "",
                                          of_perplexity(document) ? "places where dense finds the same token likeliest"
                                                                  : "words shared with dense's answer"),
                              "", 80);
  out += "\n";
  if (several) out += by_length(document) + fmt::format("At {} tokens:\n\n", length_words(tokens_of(length)));
  out += of_length(document, length) + what_is_missing(document) + "\n" + task_sentence(document, length) + "\n";
  if (const std::string words = partial_words(document); !words.empty()) out += "\n" + bold(words) + "\n";
  return out;
}

}  // namespace lacuna::cli::task
