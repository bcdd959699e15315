// SPDX-License-Identifier: Apache-2.0
// lacuna compare: one prompt with stock llama.cpp, with Lacuna dense, and with each method. Every
// run is a process of its own, so that peak memory is its own and a crash ends nothing else.
#include <algorithm>
#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/child.h"
#include "cli/compare_html.h"
#include "cli/compare_table.h"
#include "cli/model.h"
#include "cli/run_options.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// Runs a child and shows, on a terminal, for how long it has been at it.
ChildResult run_shown(const std::string& label, const std::vector<std::string>& arguments) {
  const auto start = Clock::now();
  const auto line = [&] {
    if (!stderr_is_terminal()) return;
    const auto s = std::chrono::duration_cast<std::chrono::seconds>(Clock::now() - start).count();
    fmt::print(stderr, "\r\033[K{}  {} s", one_line(label, 60), s);
  };
  line();
  ChildResult result = run_child(arguments, line);
  if (stderr_is_terminal()) fmt::print(stderr, "\r\033[K");
  return result;
}

// One run as a child process; {"method", "error"} when it failed.
Json one_run(const RunOptions& o, const std::string& method, const std::string& label) {
  std::vector<std::string> arguments = {"run", "--method=" + method, "--json=-"};
  const auto rest = to_arguments(o);
  arguments.insert(arguments.end(), rest.begin(), rest.end());
  const ChildResult child = run_shown(label, arguments);
  Json run = Json::parse(child.out, nullptr, false);
  const bool whole = run.is_object() && run.contains("ttft_s");
  if ((child.code == kOk || child.code == kInterrupted) && whole) {
    run["error"] = nullptr;
  } else {
    run = Json::object();
    run["method"] = method;
    run["error"] = child.code == kInterrupted ? "interrupted" : child.reason();
  }
  const bool timed = run["error"].is_null() && run["ttft_s"].is_number();
  fmt::print(stderr, "  {}: {}\n", label,
             timed ? fmt::format("first token after {:.2f} s", run["ttft_s"].get<double>())
                   : run["error"].is_string() ? run["error"].get<std::string>() : "interrupted");
  return run;
}

// Of several runs of one method, the one with the median time to first token; a failed one if all are.
Json median_run(std::vector<Json> runs) {
  const auto failed = [](const Json& r) { return !r["error"].is_null() || !r["ttft_s"].is_number(); };
  const Json last = runs.back();
  std::erase_if(runs, failed);
  if (runs.empty()) return last;
  std::sort(runs.begin(), runs.end(), [](const Json& a, const Json& b) { return a["ttft_s"] < b["ttft_s"]; });
  return runs[(runs.size() - 1) / 2];
}

// Adds kl_mean and same_top_share to the runs, and the floor to the document.
void add_kl(const RunOptions& o, Json& document) {
  std::string methods;
  for (const Json& run : document["runs"])
    if (run["method"] != "stock" && run["error"].is_null())
      methods += (methods.empty() ? "" : ",") + run["method"].get<std::string>();
  std::vector<std::string> arguments = {"kl"};
  if (!methods.empty()) arguments.push_back("--methods=" + methods);
  const auto rest = to_arguments(o);
  arguments.insert(arguments.end(), rest.begin(), rest.end());
  const ChildResult child = run_shown("comparing logits with stock", arguments);
  const Json kl = Json::parse(child.out, nullptr, false);
  if (child.code != kOk || !kl.is_object()) {
    note(fmt::format("no KL: {}", child.code == kInterrupted ? "interrupted" : child.reason()));
    return;
  }
  fmt::print(stderr, "  comparing logits with stock: {} positions\n", kl["positions"].get<long long>());
  document["floor"] = {{"kl_mean", kl["floor"]["kl_mean"]},
                       {"same_top_share", kl["floor"]["same_top_share"]},
                       {"positions", kl["positions"]}};
  for (Json& run : document["runs"])
    for (const Json& m : kl["methods"])
      if (m["method"] == run["method"]) {
        run["kl_mean"] = m["kl_mean"];
        run["same_top_share"] = m["same_top_share"];
        if (m["error"].is_string()) note(fmt::format("no KL for {}: {}", run["method"].get<std::string>(), m["error"].get<std::string>()));
      }
}

int compare(const RunOptions& o, const std::vector<std::string>& methods, int rounds, bool want_kl, const JsonSink& sink, const std::string& html) {
  catch_interrupt();
  // Round by round, so that a slow spell of the machine falls on all methods alike.
  std::vector<std::vector<Json>> runs(methods.size());
  for (int round = 0; round < rounds && !interrupted(); ++round)
    for (std::size_t i = 0; i < methods.size() && !interrupted(); ++i) {
      const std::string turn = rounds > 1 ? fmt::format(" ({} of {})", round + 1, rounds) : "";
      runs[i].push_back(one_run(o, methods[i], methods[i] + turn));
    }
  Json document;
  document["runs"] = Json::array();
  document["floor"] = nullptr;
  for (std::size_t i = 0; i < methods.size(); ++i) {
    if (runs[i].empty()) continue;
    Json run = median_run(std::move(runs[i]));
    run["kl_mean"] = nullptr;
    run["same_top_share"] = nullptr;
    if (methods[i] == "stock" && run["error"].is_null()) {  // stock is the measure: no distance from itself
      run["kl_mean"] = 0.0;
      run["same_top_share"] = 1.0;
    }
    document["runs"].push_back(std::move(run));
  }
  const auto good = [](const Json& r) { return r["error"].is_null(); };
  const bool any = std::any_of(document["runs"].begin(), document["runs"].end(), good);
  if (want_kl && any && !interrupted()) add_kl(o, document);
  if (!sink.on_stdout()) fmt::print("\n{}\n{}\n", compare_table(document), compare_sentence(document));
  if (sink.wanted())
    if (const std::string why = sink.write(document); !why.empty()) return bad_input(why);
  if (!html.empty())
    if (const std::string why = write_text(html, compare_html(document)); !why.empty()) return bad_input(why);
  if (interrupted()) return stopped(static_cast<long long>(document["runs"].size()), "methods");
  if (!any) return kBadInput;  // every run said why
  return std::all_of(document["runs"].begin(), document["runs"].end(), good) ? kOk : kFailedCheck;
}

}  // namespace

int verb_compare(int argc, char** argv) {
  CLI::App app("The same prompt with stock llama.cpp, with Lacuna dense, and with each method.", "compare");
  RunOptions o;
  o.predict = 32;
  JsonSink sink;
  std::string list, html, profile, tuned;
  int rounds = 1;
  bool no_kl = false;
  app.add_option("--methods", list, "method specs, separated by commas; stock and dense always run")->type_name("A,B,C");
  app.add_option("--profile", profile, "a profile of tune or calibrate: one method more, with it")->type_name("FILE");
  app.add_option("--runs", rounds, "runs of each; the one with the median time counts")->check(CLI::Range(1, 99))->capture_default_str();
  app.add_flag("--no-kl", no_kl, "leave out the pass that compares logits");
  app.add_option("--html", html, "also write a page with pictures: one file that needs no network")->type_name("FILE");
  add_run_options(app, o);
  sink.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  for (const std::string& why : {check_run_options(o), take_profile(profile, false, tuned), sink.check(), html.empty() ? "" : check_writable("--html", html)})
    if (!why.empty()) return bad_input(why);
  if (o.file == "-") return bad_input("-f -: compare reads the text once per run; give it as a file");
  std::vector<std::string> methods = {"stock", "dense"};
  for (const std::string& spec : split_methods(tuned.empty() ? list : list + "," + tuned)) {
    for (const std::string& why : {check_method(spec), check_profiles(spec, o.model)})
      if (!why.empty()) return bad_input(why);
    if (std::find(methods.begin(), methods.end(), spec) == methods.end()) methods.push_back(spec);
  }
  return compare(o, methods, rounds, !no_kl, sink, html);
}

}  // namespace lacuna::cli
