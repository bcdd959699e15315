// SPDX-License-Identifier: Apache-2.0
// lacuna calibrate: reads texts with a model, dense, while a method watches; writes what it found as a
// profile. After every prompt the state goes to PROFILE.part, from which the same command goes on.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "cli/llama/model.h"
#include "cli/llama/plugin.h"
#include "cli/profile/reading.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

struct CalibrateOptions {
  std::string spec, model, output;
  std::vector<std::string> texts;
  int context = 0, threads = 0;  // context 0: what the method asks for
  long long max_tokens = 0;
  bool verbose = false;
};

int calibrate(CalibrateOptions& o, const Method& method, const std::string& spec, const std::vector<std::string>& texts, const JsonSink& sink) {
  const auto start = std::chrono::steady_clock::now();
  keep_log(o.verbose);
  catch_interrupt();
  std::string error;
  Plugin plugin;
  if (error = load_backends(); !error.empty()) return bad_input(error);
  if (error = plugin.load(); !error.empty()) return bad_input(error);
  if (error = plugin.configure(spec + " calibrate=1 quiet=1"); !error.empty()) return bad_input(error);
  llama_backend_init();
  const ModelPtr model = load_model(o.model, plugin.devices(), error);
  if (interrupted()) return kInterrupted;
  if (!model) return bad_input(error);
  Prompts prompts;
  if (error = cut(model.get(), o.texts, texts, o.context, o.max_tokens, prompts); !error.empty()) return bad_input(error);
  RunOptions run;
  run.threads = o.threads > 0 ? o.threads : usable_cores();
  run.ubatch = std::min(o.context, 512);
  const ContextPtr context = make_context(model.get(), run, o.context, run.ubatch, run.ubatch, error);
  if (!context) return bad_input(error);
  warm_up(context.get());

  std::error_code bad;
  const ModelFacts file = facts_of(model.get());
  const Json settings = {{"method", spec}, {"model", as_json(file)}, {"model_bytes", fs::file_size(o.model, bad)},
                         {"ctx", o.context}, {"max_tokens", o.max_tokens}, {"texts", prompts.texts}};
  const std::string part = o.output + ".part";
  const int total = static_cast<int>(prompts.all.size());
  int resumed = 0;
  if (const int code = watch(context.get(), prompts, run.ubatch, plugin, part, settings, "calibrating", resumed); code >= 0) return code;
  const std::string found = plugin.calibration(true, error);
  if (!error.empty()) {
    fs::remove(part, bad);  // the same settings would end here again
    return bad_input(error);
  }
  auto profile = profile_of(method.card().slug, found, file);
  if (!profile.ok()) return bad_input(profile.error().what);
  profile.value().texts = {{"files", prompts.texts}, {"tokens", prompts.tokens}, {"prompts", total}, {"ctx", o.context}};
  if (const Status wrote = write_profile(profile.value(), o.output); !wrote.ok()) return bad_input(wrote.error().what);
  fs::remove(part, bad);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (sink.wanted()) {
    error = sink.write({{"profile", o.output}, {"method", spec}, {"model", o.model}, {"prompts", total}, {"tokens", prompts.tokens},
                        {"resumed_prompts", resumed}, {"seconds", seconds}});
    if (!error.empty()) return bad_input(error);
  }
  if (!sink.on_stdout())
    fmt::print("{}: from {} tokens in {} prompts, {:.1f} s\nuse it: --method {}:profile={}\n", o.output, prompts.tokens, total, seconds,
               method.card().slug, o.output);
  return kOk;
}

}  // namespace

int verb_calibrate(int argc, char** argv) {
  CLI::App app("Reads texts with a model while a method watches, and writes what it found as a profile.", "calibrate");
  CalibrateOptions o;
  JsonSink sink;
  app.set_help_flag("-h,--help", "show this");
  app.add_option("SLUG", o.spec, "a method that can be calibrated, with the parameters that matter to it")->required()->type_name("SPEC");
  app.add_option("-m,--model", o.model, "the model, a GGUF file")->required()->type_name("FILE");
  app.add_option("-f,--file", o.texts, "texts to read, separated by commas")->required()->delimiter(',')->allow_extra_args(false)->type_name("FILE");
  app.add_option("-o,--output", o.output, "the profile to write")->required()->type_name("FILE");
  app.add_option("-c,--ctx-size", o.context, "tokens of a prompt: texts are cut into such; what the method asks for when not given")->check(CLI::Range(2, 1 << 20));
  app.add_option("-t,--threads", o.threads, "threads; 0 = one per core")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("--max-tokens", o.max_tokens, "tokens to read at most; 0 = all")->check(CLI::Range(0LL, 1LL << 40))->capture_default_str();
  app.add_flag("-v,--verbose", o.verbose, "show llama.cpp's log");
  sink.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  auto made = make_method(o.spec, {.lone_wrapper = true, .profiles = false});
  if (!made.ok()) return bad_input(made.error().what);
  Method& method = *made.value();
  if (method.inner()) return bad_input(fmt::format("{}: calibrate takes one method at a time, without wrappers", o.spec));
  if (const auto from = method.card().profile_from; !from.empty()) return bad_input(fmt::format("{}: '{}' makes its profile", method.card().slug, from));
  for (const auto& p : describe_params(method))
    if (p.name == "profile" && !p.value.empty()) return bad_input(fmt::format("{}.profile: calibrate makes one; leave it out, -o names the file", method.card().slug));
  const auto calibrator = make_calibrator(method);
  if (!calibrator.ok()) return bad_input(calibrator.error().what);
  if (o.context == 0) o.context = calibrator.value()->prompt_tokens();
  for (const std::string& why : {check_output(o.output), sink.check()})
    if (!why.empty()) return bad_input(why);
  std::vector<std::string> texts;
  if (const std::string why = read_texts(o.texts, texts); !why.empty()) return bad_input(why);
  return calibrate(o, method, canonical_spec(method), texts, sink);
}

}  // namespace lacuna::cli
