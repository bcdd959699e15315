// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/jobs.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/compare/document.h"
#include "cli/llama/model.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

ChildResult Jobs::run(std::vector<std::string> arguments, const RunOptions& o, const std::string& label,
                      const std::function<std::string(const std::string& out)>& detail) {
  const auto rest = to_arguments(o);
  arguments.insert(arguments.end(), rest.begin(), rest.end());
  const double start = now();
  const std::string left = left_.words();
  const auto line = [&](const std::string& out) {
    if (!stderr_is_terminal()) return;
    fmt::print(stderr, "\r\033[K[{}/{}] {}  {}{:.0f} s{}", left_.jobs_done() + 1, left_.jobs(), one_line(label, 40),
               detail ? detail(out) + ", " : "", now() - start, left.empty() ? "" : "; " + left);
  };
  line("");
  ChildResult result = run_child(arguments, line);
  if (stderr_is_terminal()) fmt::print(stderr, "\r\033[K");
  left_.done(now() - start);
  return result;
}

void Jobs::say(const std::string& label, const std::string& what) const {
  const std::string left = interrupted() ? "" : left_.words();
  fmt::print(stderr, "  {}: {}{}\n", label, what,
             left.empty() ? "" : fmt::format("  [{}/{}, {}]", left_.jobs_done(), left_.jobs(), left));
}

Json run_of(const ChildResult& child, const std::string& json, const std::string& method) {
  Json run = Json::parse(json, nullptr, false);
  if ((child.code == kOk || child.code == kInterrupted) && run.is_object() && run.contains("ttft_s")) {
    run["state"] = child.code == kOk ? kDone : kCut;
    run["error"] = child.code == kOk ? Json() : Json("interrupted");
  } else {
    const bool cut = child.code == kInterrupted;
    const char* state = cut ? kCut : child.code == kBadInput ? kRefused : kDied;
    run = {{"method", method}, {"state", state}, {"error", cut ? "interrupted" : child.reason()}};
  }
  run["kl_mean"] = run["same_top_share"] = nullptr;
  if (method == "stock" && run["state"] == kDone) {  // stock is the measure: no distance from itself
    run["kl_mean"] = 0.0;
    run["same_top_share"] = 1.0;
  }
  return run;
}

void add_kl(Jobs& jobs, const RunOptions& o, const std::string& at, Json& length) {
  std::string methods;
  for (const Json& run : length["runs"])
    if (run["method"] != "stock" && run["state"] == kDone)
      methods += (methods.empty() ? "" : ",") + run["method"].get<std::string>();
  std::vector<std::string> arguments = {"kl"};
  if (!methods.empty()) arguments.push_back("--methods=" + methods);
  const std::string label = "comparing logits with stock" + at;
  const ChildResult result = jobs.run(arguments, o, label);
  const Json kl = Json::parse(result.out, nullptr, false);
  if (result.code != kOk || !kl.is_object()) {
    length["kl_error"] = result.code == kInterrupted ? "interrupted" : result.reason();
    return note(fmt::format("no KL{}: {}", at, length["kl_error"].get<std::string>()));
  }
  jobs.say(label, fmt::format("{} positions", kl["positions"].get<long long>()));
  length["floor"] = {{"kl_mean", kl["floor"]["kl_mean"]},
                     {"same_top_share", kl["floor"]["same_top_share"]},
                     {"positions", kl["positions"]}};
  for (Json& run : length["runs"])
    for (const Json& m : kl["methods"])
      if (m["method"] == run["method"]) {
        run["kl_mean"] = m["kl_mean"];
        run["same_top_share"] = m["same_top_share"];
        if (m["error"].is_string())
          note(fmt::format("no KL for {}: {}", run["method"].get<std::string>(), m["error"].get<std::string>()));
      }
}

}  // namespace lacuna::cli
