// SPDX-License-Identifier: Apache-2.0
#include "cli/compare_figures.h"

#include <algorithm>

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

bool worked(const Json& run) { return run["error"].is_null() && figure(run, "/ttft_s"); }

const Json* find_run(const Json& document, std::string_view method) {
  for (const Json& run : document["runs"])
    if (run["method"] == method && worked(run)) return &run;
  return nullptr;
}

}  // namespace lacuna::cli
