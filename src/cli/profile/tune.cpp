// SPDX-License-Identifier: Apache-2.0
// lacuna tune: reads texts with a model, dense, while every method is tried on a few rows of every call; takes for each
// head the cheapest that keeps the limit of lost mass (engine/tune.h); reads the texts held back with what was found, audited,
// and tightens until they keep it too. What was seen goes to PROFILE.part after every prompt.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/profile/reading.h"
#include "cli/profile/tuner.h"
#include "cli/verbs.h"
#include "engine/registry.h"
#include "engine/tune.h"
#include "lacuna/lacuna.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kRounds = 4;       // of aiming and checking
constexpr double kSaves = 0.98;  // of dense's attention time: a profile above it is not worth its file
constexpr double kNear = 0.9;    // of the limit: who loses so much, and keeps it, need not aim again
constexpr double kAim = 0.96;    // of the limit: what the next round shall lose

// Why no profile is written: what the limit would have to be for one that saves something.
std::string impossible(const TrialSums& sums, const CostModel& costs, double limit, int chunk, int n_layers) {
  std::string reach = "no limit would change that";
  for (double more = limit * 1.25; more < 1; more *= 1.25)
    if (const auto t = tune(sums, costs, more, chunk, n_layers); t.ok() && t.value().seconds < kSaves * t.value().dense_seconds) {
      reach = fmt::format("the best within reach: --max-loss {:.2g}% takes {:.2f} of dense's attention time", 100 * more,
                          t.value().seconds / t.value().dense_seconds);
      break;
    }
  return fmt::format("--max-loss {:g}%: nothing that keeps it is cheaper than dense on these texts; {}", 100 * limit, reach);
}

// A profile that the texts held back have kept the limit with.
struct Settled {
  std::string text;
  Tuning tuning;
  Checked checked;
};

// Aims at the limit, checks, and aims again by what was lost; takes the sparsest profile that kept it. -1, else the exit code,
// the reason told. `p` comes with the model and the texts.
int settle(Tuner& t, Profile p, const TrialSums& sums, const CostModel& costs, double limit, Settled& out) {
  const std::string trial = t.options().output + ".try";
  std::error_code bad;
  double target = limit, least = 1;
  for (int round = 0; round < kRounds; ++round) {
    const auto made = tune(sums, costs, target, t.chunk(), p.model.n_layers);
    if (!made.ok()) return bad_input(made.error().what);
    const Tuning& now = made.value();
    if (now.seconds >= kSaves * now.dense_seconds) break;
    p.data = as_json(now.table);
    p.params = {{"max_loss", limit}, {"seed", t.options().seed}, {"aimed_at", target}, {"expected_lost", now.lost},
                {"expected_share_of_dense_time", now.seconds / now.dense_seconds}};
    if (const Status wrote = write_profile(p, trial); !wrote.ok()) return bad_input(wrote.error().what);
    Checked checked;
    const std::string error = t.check(trial, checked);
    fs::remove(trial, bad);
    if (!error.empty()) return bad_input(error);
    if (interrupted()) {
      note(fmt::format("interrupted while checking; the same command goes on from {}", t.part()));
      return kInterrupted;
    }
    least = std::min(least, checked.lost);
    const bool keeps = checked.lost <= limit;
    if (keeps && (out.text.empty() || checked.density < out.checked.density)) {
      p.params["held_back"] = {{"lost", checked.lost}, {"upper", checked.upper}, {"density", checked.density}};
      out = {profile_text(p), now, checked};
    }
    if (keeps && checked.lost > kNear * limit) break;
    target *= std::clamp(kAim * limit / std::max(checked.lost, 1e-6), 0.25, 1.5);
  }
  if (!out.text.empty()) return -1;
  if (least == 1) return bad_input(impossible(sums, costs, limit, t.chunk(), p.model.n_layers));
  return bad_input(fmt::format("--max-loss {:g}%: the texts held back lose {:.2g}% at the best; give more texts, alike to those it is for, or a larger limit",
                               100 * limit, 100 * least));
}

int write_tuned(Tuner& t, double limit, const JsonSink& sink) {
  const auto start = std::chrono::steady_clock::now();
  std::string found;
  if (const int code = t.observe(found); code >= 0) return code;
  auto profile = profile_of("tuned", found, t.file());
  if (!profile.ok()) return bad_input(profile.error().what);
  Profile& p = profile.value();
  const auto sums = trial_sums(p.data, "sums");
  if (!sums.ok()) return bad_input(sums.error().what);
  const auto costs = t.costs(p.model);
  if (!costs.ok()) return bad_input(costs.error().what);
  p.texts = {{"files", t.watched().texts}, {"tokens", t.watched().tokens}, {"prompts", t.watched().all.size()}, {"ctx", t.options().context},
             {"held_back_prompts", t.held().all.size()}, {"held_back_tokens", t.held().tokens}};
  Settled best;
  if (const int code = settle(t, p, sums.value(), costs.value(), limit, best); code >= 0) return code;
  const std::string& path = t.options().output;
  if (const Status wrote = write_whole(path, best.text); !wrote.ok()) return bad_input(wrote.error().what);
  std::error_code bad;
  fs::remove(t.part(), bad);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double share = best.tuning.seconds / best.tuning.dense_seconds;
  const Checked& held = best.checked;
  if (sink.wanted()) {
    const std::string error = sink.write({{"profile", path}, {"model", t.options().model}, {"max_loss", limit}, {"tokens", t.watched().tokens},
                                          {"methods", best.tuning.table.methods}, {"expected_lost", best.tuning.lost}, {"expected_share_of_dense_time", share},
                                          {"held_back", {{"tokens", t.held().tokens}, {"lost", held.lost}, {"upper", held.upper}, {"density", held.density}}},
                                          {"seconds", seconds}});
    if (!error.empty()) return bad_input(error);
  }
  if (!sink.on_stdout())
    fmt::print("{}: from {} tokens, {:.0f} s\n{} tokens held back lose {:.2f} % at a density of {:.1f} %; by the cost model {:.2f} of dense's attention time\n"
               "use it: --profile {}\n",
               path, t.watched().tokens, seconds, t.held().tokens, 100 * held.lost, 100 * held.density, share, path);
  return kOk;
}

// "" or why heads cannot choose among these.
std::string check_candidates(const std::vector<std::string>& methods) {
  for (const std::string& spec : methods) {
    const auto made = make_method(spec);
    if (!made.ok()) return fmt::format("--methods: {}", made.error().what);
    if (made.value()->inner() || made.value()->candidates() || made.value()->calibrated_for())
      return fmt::format("--methods: {}: need methods that plan by themselves, without wrappers and profiles", spec);
  }
  return "";
}

}  // namespace

int verb_tune(int argc, char** argv) {
  CLI::App app("Finds for each layer, head and length the cheapest method within a lost mass, and writes it as a profile.", "tune");
  TuneOptions o;
  JsonSink sink;
  app.set_help_flag("-h,--help", "show this");
  app.add_option("-m,--model", o.model, "the model, a GGUF file")->required()->type_name("FILE");
  app.add_option("-f,--file", o.texts, "texts like those it is for, separated by commas")->required()->delimiter(',')->allow_extra_args(false)->type_name("FILE");
  app.add_option("-o,--output", o.output, "the profile to write")->required()->type_name("FILE");
  app.add_option("--max-loss", o.max_loss, "mean lost mass allowed")->type_name("SHARE")->capture_default_str();
  app.add_option("-c,--ctx-size", o.context, "tokens of a prompt: texts are cut into such, and beyond them the profile is dense")->check(CLI::Range(1024, 1 << 20))->capture_default_str();
  app.add_option("--methods", o.methods, "specs to choose among, separated by commas; when not given, windows of all sizes, xattention and sampleattention")->type_name("A,B,C");
  app.add_option("-t,--threads", o.threads, "threads; 0 = one per core")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("--seed", o.seed, "for the rows that are drawn")->capture_default_str();
  app.add_option("--max-tokens", o.max_tokens, "tokens to read at most; 0 = all")->check(CLI::Range(0LL, 1LL << 40))->capture_default_str();
  app.add_flag("-v,--verbose", o.verbose, "show llama.cpp's log");
  sink.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  const std::vector<std::string> methods = o.methods.empty() ? tuning_methods(o.context) : split_methods(o.methods);
  for (const std::string& why : {check_limits({.max_loss = o.max_loss}), check_output(o.output), sink.check(), check_candidates(methods)})
    if (!why.empty()) return bad_input(why);
  std::vector<std::string> texts;
  if (const std::string why = read_texts(o.texts, texts); !why.empty()) return bad_input(why);
  keep_log(o.verbose);
  catch_interrupt();
  const double limit = parse_options("max_loss=" + o.max_loss).value().max_loss;
  Tuner tuner(o, methods);
  const std::string error = tuner.open(texts);
  if (interrupted()) return kInterrupted;
  if (!error.empty()) return bad_input(error);
  return write_tuned(tuner, limit, sink);
}

}  // namespace lacuna::cli
