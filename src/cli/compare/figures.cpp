// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/figures.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/compare/document.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

std::optional<double> figure(const Json& run, const char* pointer) {
  const auto p = Json::json_pointer(pointer);
  if (!run.contains(p) || !run.at(p).is_number()) return std::nullopt;
  return run.at(p).get<double>();
}

std::optional<double> lost_mass(const Json& run) {
  const auto prefill = figure(run, "/lost_mass/mean");
  const auto rows = figure(run, "/lost_mass_decode/rows"), decode = figure(run, "/lost_mass_decode/mean");
  return prefill && rows && *rows > 0 && decode ? std::max(*prefill, *decode) : prefill;
}

double step_seconds(const Json& run, const char* step) {
  const auto all = figure(run, fmt::format("/attention_s/{}", step).c_str());
  const auto writing = figure(run, fmt::format("/attention_s_decode/{}", step).c_str());
  return std::max(0.0, all.value_or(0) - writing.value_or(0));
}

std::optional<double> attention_seconds(const Json& run) {
  double s = 0;
  for (const char* step : {"estimate", "budget", "attend", "correct"}) s += step_seconds(run, step);
  return s > 0 ? std::optional(s) : std::nullopt;
}

bool worked(const Json& run) {
  const auto ttft = figure(run, "/ttft_s");
  return (run["state"] == kDone || run["state"] == kCut) && ttft && *ttft > 0;
}

const Json* find_run(const Json& length, std::string_view method) {
  for (const Json& run : length["runs"])
    if (run["method"] == method && worked(run)) return &run;
  return nullptr;
}

std::optional<double> speedup(const Json& length, const Json& run) {
  const Json* stock = find_run(length, "stock");
  return stock && worked(run) ? std::optional(*figure(*stock, "/ttft_s") / *figure(run, "/ttft_s")) : std::nullopt;
}

long long tokens_of(const Json& length) {
  const auto text = figure(length, "/text_tokens");
  return static_cast<long long>(text && *text > 0 ? *text : *figure(length, "/prompt_tokens"));
}

const Json& longest(const Json& document) {
  const Json& lengths = document["lengths"];
  for (auto length = lengths.rbegin(); length != lengths.rend(); ++length)
    for (const Json& run : (*length)["runs"])
      if (worked(run)) return *length;
  return lengths.front();
}

std::string plain(std::optional<double> x, const char* format) {
  return x ? fmt::format(fmt::runtime(format), *x) : "-";
}
std::string share(std::optional<double> x) { return x ? fmt::format("{:.2f} %", 100 * *x) : "-"; }

std::string state_words(const Json& run) {
  const std::string state = run["state"].get<std::string>();
  const std::string why = run["error"].is_string() ? one_line(run["error"].get<std::string>(), 400) : "";
  if (state == kCut) return worked(run) ? "interrupted: figures up to there" : "interrupted before the first token";
  if (state == kRefused) return "did not run: " + why;
  if (state == kDied) return "died: " + why;
  if (state == kMissing) return why;
  return worked(run) ? "" : "no time to the first token";
}

std::string partial_words(const Json& document) {
  const Json& partial = document["partial"];
  if (!partial.is_object()) return "";
  const auto number = [&](const char* key) { return static_cast<long long>(figure(partial, key).value_or(0)); };
  const std::string why =
      partial.contains("why") && partial["why"].is_string() ? partial["why"].get<std::string>() : "unknown why";
  return fmt::format("Partial ({}): {} of {} runs are whole.", one_line(why, 80), number("/done"), number("/planned"));
}

}  // namespace lacuna::cli
