// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/saved_options.h"

#include <fmt/format.h>

#include "cli/bench/history.h"
#include "cli/bench/ratio.h"

namespace lacuna::cli {

void SavedOptions::add_to(CLI::App& app) {
  app.add_option("--save", save, "keep all rounds of this run in a file")->type_name("FILE");
  app.add_option("--against", against, "compare with a run that --save kept: new / old of each case and how sure that is")
      ->type_name("FILE");
  app.add_option("--fail-above", limit, "with --against: exit code 1 if a case is slower and takes more than so many times as long")
      ->check(CLI::Range(1.0, 1e6))
      ->type_name("RATIO");
  app.add_option("--history", history, "run nothing: runs that --save kept, by their dates, as a page (--html)")->type_name("FILES");
  app.add_option("--html", html, "the page of --history: one file that needs no network")->type_name("FILE");
}

std::string SavedOptions::check(const CaseOptions& cases, int runs) const {
  if (history.empty() != html.empty()) return "--history and --html: one needs the other";
  if (!history.empty() && !(save + against).empty()) return "--history: shows files; it takes no --save and no --against";
  if (!history.empty() && (!cases.words.empty() || cases.json.wanted())) return "--history: shows files; it takes no CASES and no --json";
  if (limit > 0 && against.empty()) return "--fail-above: needs a run to compare with (--against FILE)";
  const auto fewest = static_cast<int>(kFewestRounds), most = static_cast<int>(kMostRounds);
  if (!(save + against).empty() && runs > 0 && (runs < fewest || runs > most))
    return fmt::format("--runs: got {}, need {}..{} with --save or --against", runs, fewest, most);
  const std::string why = save.empty() ? "" : check_writable("--save", save);
  return !why.empty() || html.empty() ? why : check_writable("--html", html);
}

Result<std::optional<Against>> SavedOptions::read_against() const {
  if (against.empty()) return std::optional<Against>();
  auto run = read_run("--against", against);
  if (!run.ok()) return run.error();
  Against with(std::move(run.value()));
  if (limit > 0 && !with.same_machine())
    return bad_argument(fmt::format("--fail-above: {} is of another machine; save a run on this one", against));
  return std::optional(std::move(with));
}

int SavedOptions::show_history() const {
  std::vector<SavedRun> runs;
  for (const std::string& path : history) {
    auto run = read_run("--history", path);
    if (!run.ok()) return bad_input(run.error().what);
    runs.push_back(std::move(run.value()));
  }
  const std::string why = write_text(html, history_html(std::move(runs)));
  return why.empty() ? kOk : bad_input(fmt::format("--html {}: cannot write ({})", html, why));
}

}  // namespace lacuna::cli
