// SPDX-License-Identifier: Apache-2.0
// lacuna bench: the time of one call of an op, or of a whole method's choosing (cli/bench/choosing.h), case by case.
// Runs are kept, compared and shown: cli/bench/saved_options.h.
#include <cstdio>
#include <map>
#include <new>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/bench/against.h"
#include "cli/bench/choosing.h"
#include "cli/bench/measured.h"
#include "cli/bench/saved.h"
#include "cli/bench/saved_options.h"
#include "cli/bench/show.h"
#include "cli/case/options.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "engine/pick.h"

namespace lacuna::cli {
namespace {

bool is_dense(const Case& c) { return c.layout == Layout::closed && c.keep >= 1 && c.window == 0; }

// The dense case of the same shape.
Case unselected(Case c) {
  const Case plain;
  c.layout = plain.layout;
  c.keep = plain.keep;
  c.block = plain.block;
  c.window = plain.window;
  c.sink = plain.sink;
  return c;
}

// Prints and keeps what a case took.
struct Record {
  bool speak;
  Progress& progress;
  nlohmann::ordered_json& cases;
  SavedRun run;
  std::optional<Against> against;

  template <class Measured>
  Status add(const Case& c, const Result<Measured>& outcome) {
    progress.clear();
    if (!outcome.ok()) return outcome.error();
    if (speak) print(c, outcome.value());
    cases.push_back(as_json(c, outcome.value()));
    run.cases.push_back(rounds_of(c, outcome.value()));
    if (!against) return {};
    const std::string words = against->add(run.cases.back());
    if (speak) fmt::print("  {}\n", words);
    if (speak) std::fflush(stdout);
    cases.back()["against"] = against->last();
    return {};
  }
};

}  // namespace

int verb_bench(int argc, char** argv) {
  CLI::App app("Times op attend, its gradients, what estimates need and what choosing costs, alone or against a peer.", "bench");
  CaseOptions options;
  options.add_to(app);
  std::string peer;
  int runs = 0;
  app.add_option("--peer", peer, "also time llama.cpp's own attention (the quickest of its builds here): llama")
      ->check(CLI::IsMember({"llama"}));
  app.add_option("-r,--runs", runs, "timed runs per case (default: about three seconds' worth)")->check(CLI::Range(1, 100000));
  SavedOptions saved;
  saved.add_to(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  for (const std::string& why : {options.json.check(), saved.check(options, runs)})
    if (!why.empty()) return bad_input(why);
  if (!saved.history.empty()) return saved.show_history();
  auto against = saved.read_against();
  if (!against.ok()) return bad_input(against.error().what);
  auto cases = options.read("perf_");
  if (!cases.ok()) return bad_input(cases.error().what);

  const bool speak = !options.json.on_stdout();
  if (speak && !peer.empty())
    fmt::print("{}\n\n", dim("Compared is attention alone: the host keeps K and V packed, llama.cpp keeps its own cache.\n"
                             "GFLOP/s count attended pairs; ratio = llama.cpp's time / ours; it always attends to all.\n"
                             "Roofline: what products, softmax weights and moving q, K, V and out would take alone, at the best\n"
                             "speed seen in this run; in brackets, the share of our time."));
  nlohmann::ordered_json document = {{"machine", describe(detect_features())}, {"cases", nlohmann::ordered_json::array()}};
  Progress progress("bench", static_cast<long long>(cases.value().size()), "cases");
  Record record{speak, progress, document["cases"], new_run(), std::move(against.value())};
  if (record.against && speak) fmt::print("{}\n", record.against->heading());
  long long done = 0;
  Roofline roofline;
  std::map<std::string, double> dense;  // seconds, by the line without its selection
  for (const Case& c : cases.value()) {
    progress.update(done++);
    try {
      const bool with_peer = !peer.empty() && c.op == "attend";
      Status done_well;
      if (c.op == "attend") {
        auto outcome = bench_attend(c, with_peer, runs, roofline);
        if (outcome.ok()) {
          double& whole = dense[unselected(c).line()];
          if (is_dense(c)) whole = outcome.value().ours.median;
          else outcome.value().dense = whole;
        }
        done_well = record.add(c, outcome);
      } else if (c.op == "attend_grad") {
        done_well = record.add(c, bench_grad(c, runs, roofline));
      } else if (c.op == "int4_scores") {
        done_well = record.add(c, bench_int4(c, runs, roofline));
      } else if (c.op == "int8_scores") {
        done_well = record.add(c, bench_int8(c, runs, roofline));
      } else if (c.op == "attend_maxima") {
        done_well = record.add(c, bench_maxima(c, runs, roofline));
      } else if (c.op == "choose") {
        done_well = record.add(c, measure_choosing(c, runs));
      } else {
        done_well = record.add(c, bench_strided(c, runs, roofline));
      }
      if (!done_well.ok()) return bad_input(fmt::format("{}: {}", done_well.error().what, c.line()));
    } catch (const std::bad_alloc&) {
      return bad_input(fmt::format("out of memory: {}", c.line()));
    }
  }
  if (record.against) {
    document["against"] = record.against->as_json();
    if (speak) fmt::print("\n{}", record.against->summary());
  }
  if (options.json.wanted())
    if (const std::string why = options.json.write(document); !why.empty()) return bad_input(why);
  if (!saved.save.empty())
    if (const std::string why = save_run(saved.save, record.run); !why.empty()) return bad_input(why);
  const int above = saved.limit > 0 ? record.against->above(saved.limit) : 0;
  if (above == 0) return kOk;
  std::fflush(stdout);
  fmt::print(stderr, "lacuna: {} {} more than {:g} times as long as in {}\n", above, above == 1 ? "case takes" : "cases take",
             saved.limit, saved.against);
  return kFailedCheck;
}

}  // namespace lacuna::cli
