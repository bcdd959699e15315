// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/document.h"

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/llama/model.h"
#include "cli/machine.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kFormat = "lacuna-compare";

Json or_null(const auto& value) { return value ? Json(*value) : Json(); }

bool is_run(const Json& run) {
  return run.is_object() && run.contains("method") && run["method"].is_string() && run.contains("state") &&
         run["state"].is_string() && run.contains("error");
}

bool is_length(const Json& length) {
  if (!length.is_object()) return false;
  for (const char* key : {"text_tokens", "prompt_tokens", "kv_cache_bytes", "runs", "floor"})
    if (!length.contains(key)) return false;
  return length["prompt_tokens"].is_number() && length["runs"].is_array() &&
         std::all_of(length["runs"].begin(), length["runs"].end(), is_run);
}

bool is_document(const Json& d) {
  for (const char* key : {"model", "host", "machine"})
    if (!d.contains(key) || !d[key].is_string()) return false;
  for (const char* key : {"methods", "lengths"})
    if (!d.contains(key) || !d[key].is_array() || d[key].empty()) return false;
  if (!d.contains("partial")) return false;
  return std::all_of(d["methods"].begin(), d["methods"].end(), [](const Json& m) { return m.is_string(); }) &&
         std::all_of(d["lengths"].begin(), d["lengths"].end(), is_length);
}

}  // namespace

Json new_document(const RunOptions& o, const std::vector<CompareText>& texts, const std::vector<std::string>& methods,
                  int rounds) {
  Json d;
  d["format"] = kFormat;
  d["version"] = kCompareVersion;
  d["lacuna"] = LACUNA_VERSION;
  d["host"] = host_version();
  d["machine"] = machine_words();
  d["threads"] = o.threads;
  d["model"] = o.model;
  d["text"] = o.file.empty() ? Json() : Json(o.file);
  d["task"] = nullptr;
  d["question"] = o.prompt.empty() ? Json() : Json(o.prompt);
  d["cache_types"] = {o.cache_type_k, o.cache_type_v};
  d["rounds"] = rounds;
  d["partial"] = nullptr;
  d["methods"] = methods;
  d["lengths"] = Json::array();
  for (const CompareText& text : texts) {
    Json length;
    length["text_tokens"] = or_null(text.text_tokens);
    length["prompt_tokens"] = text.prompt_tokens;
    length["context_tokens"] = text.context_tokens;
    length["kv_cache_bytes"] = or_null(text.kv_cache_bytes);
    length["floor"] = nullptr;
    length["kl_error"] = nullptr;
    length["runs"] = Json::array();
    for (const std::string& method : methods)
      length["runs"].push_back({{"method", method}, {"state", kMissing}, {"error", "not run yet"}});
    d["lengths"].push_back(std::move(length));
  }
  return d;
}

int count_runs(const Json& document, std::string_view state) {
  int n = 0;
  for (const Json& length : document["lengths"])
    for (const Json& run : length["runs"]) n += run["state"] == state;
  return n;
}

void mark_partial(Json& document, bool running, bool interrupted) {
  const int missing = count_runs(document, kMissing), died = count_runs(document, kDied),
            cut = count_runs(document, kCut);
  const std::size_t planned = document["lengths"].size() * document["methods"].size();
  std::string why;
  if (running)
    why = "still running, or killed";
  else if (interrupted)
    why = "interrupted";
  else if (missing > 0 || cut > 0)
    why = "runs were interrupted";
  else if (died > 0)
    why = died == 1 ? "a run died" : fmt::format("{} runs died", died);
  if (!running)
    for (Json& length : document["lengths"])
      for (Json& run : length["runs"])
        if (run["state"] == kMissing) run["error"] = "interrupted before its turn";
  document["partial"] =
      why.empty() ? Json() : Json{{"why", why}, {"done", count_runs(document, kDone)}, {"planned", planned}};
}

bool read_document(const std::string& path, Json& document, std::string& error) {
  std::string text;
  if (!read_text(path, text, error)) return false;
  document = Json::parse(text, nullptr, false);
  if (!document.is_object() || !document.contains("format") || document["format"] != kFormat ||
      !document.contains("version"))
    error = fmt::format("{}: is no file of compare --json", path);
  else if (document["version"] != kCompareVersion)
    error = fmt::format("{}: has version {} of the format; this program reads {}", path,
                        one_line(document["version"].dump(), 40), kCompareVersion);
  else if (!is_document(document))
    error = fmt::format("{}: is damaged: fields of compare --json are missing (docs/compare.md)", path);
  return error.empty();
}

}  // namespace lacuna::cli
