// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/saved.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/bench/ratio.h"
#include "cli/common.h"
#include "cli/machine.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kFormat = "lacuna-bench";
constexpr int kVersion = 1;

bool is_text(const Json& j, const char* key) { return j.contains(key) && j[key].is_string(); }

// What is wrong with a case of a file; "" and the case if nothing is.
std::string read_case(const Json& j, CaseRounds& c) {
  if (!j.is_object()) return "is no object";
  for (const char* key : {"case", "kernel", "figure"})
    if (!is_text(j, key)) return fmt::format("has no {}", key);
  if (!j.contains("rounds") || !j["rounds"].is_array()) return "has no rounds";
  c = {j["case"], j["kernel"], j["figure"], {}};
  if (c.figure != "ms" && c.figure != "share_of_dense") return "has a figure that is neither ms nor share_of_dense";
  for (const Json& x : j["rounds"]) {
    constexpr double kLeast = 1e-9, kMost = 1e12;
    if (!x.is_number() || !(x.get<double>() >= kLeast && x.get<double>() <= kMost))
      return fmt::format("has the round {}, need {:g}..{:g}", one_line(x.dump(), 40), kLeast, kMost);
    c.rounds.push_back(x.get<double>());
  }
  if (c.rounds.size() < kFewestRounds || c.rounds.size() > kMostRounds)
    return fmt::format("has {} rounds, need {}..{}", c.rounds.size(), kFewestRounds, kMostRounds);
  return "";
}

// The same for the whole of a file of this format and version.
std::string read_fields(const Json& j, SavedRun& run) {
  for (const char* key : {"machine", "lacuna", "date"})
    if (!is_text(j, key)) return fmt::format("it has no {}", key);
  run.machine = j["machine"];
  run.lacuna = j["lacuna"];
  run.date = j["date"];
  if (is_text(j, "commit")) run.commit = j["commit"];
  if (!j.contains("cases") || !j["cases"].is_array() || j["cases"].empty()) return "it has no cases";
  for (const Json& one : j["cases"])
    if (const std::string why = read_case(one, run.cases.emplace_back()); !why.empty())
      return fmt::format("case {} {}", run.cases.size(), why);
  return "";
}

}  // namespace

SavedRun new_run() { return {"", machine_words(), LACUNA_VERSION, built_commit(), utc_now(), {}}; }

std::string save_run(const std::string& path, const SavedRun& run) {
  Json j = {{"format", kFormat}, {"version", kVersion}, {"lacuna", run.lacuna}};
  j["commit"] = run.commit.empty() ? Json() : Json(run.commit);
  j["date"] = run.date;
  j["machine"] = run.machine;
  j["cases"] = Json::array();
  for (const CaseRounds& c : run.cases)
    j["cases"].push_back({{"case", c.line}, {"kernel", c.kernel}, {"figure", c.figure}, {"rounds", c.rounds}});
  const std::string why = write_text(path, j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n");
  return why.empty() ? "" : fmt::format("--save {}: cannot write ({})", path, why);
}

Result<SavedRun> read_run(std::string_view option, const std::string& path) {
  std::string text, error;
  if (!read_text(path, text, error)) return bad_file(fmt::format("{} {}", option, error));
  const Json j = Json::parse(text, nullptr, false);
  if (!j.is_object() || !is_text(j, "format") || j["format"] != kFormat || !j.contains("version"))
    return bad_file(fmt::format("{} {}: is no file of bench --save", option, path));
  if (j["version"] != kVersion)
    return bad_file(fmt::format("{} {}: has version {} of the format; this program reads {}", option, path,
                                one_line(j["version"].dump(), 40), kVersion));
  SavedRun run;
  run.path = path;
  if (const std::string why = read_fields(j, run); !why.empty())
    return bad_file(fmt::format("{} {}: is damaged: {}; save it again", option, path, why));
  return run;
}

double median_of(const CaseRounds& c) {
  std::vector<double> x = c.rounds;
  std::sort(x.begin(), x.end());
  const std::size_t n = x.size();
  return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

}  // namespace lacuna::cli
