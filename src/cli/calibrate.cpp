// SPDX-License-Identifier: Apache-2.0
// lacuna calibrate: reads texts with a model, dense, while a method watches; writes what it found as a
// profile. After every prompt the state goes to PROFILE.part, from which the same command goes on.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/machine.h"
#include "cli/model.h"
#include "cli/plugin.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kMostPartBytes = std::size_t{256} << 20;

struct CalibrateOptions {
  std::string spec, model, output;
  std::vector<std::string> texts;
  int context = 0, threads = 0;  // context 0: what the method asks for
  long long max_tokens = 0;
  bool verbose = false;
};

struct Prompts {
  std::vector<std::vector<llama_token>> all;
  Json texts = Json::array();  // name, tokens and hash of each
  long long tokens = 0;
};

// 64-bit FNV-1a, as text: JSON readers elsewhere know no 64-bit numbers.
std::string hash_of(const std::string& text) {
  std::uint64_t h = 14695981039346656037u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 1099511628211u;
  return fmt::format("{:016x}", h);
}

// Texts, each cut into prompts of o.context tokens; the last of a text may be shorter. "" or the reason.
std::string cut(const llama_model* model, const CalibrateOptions& o, const std::vector<std::string>& texts, Prompts& out) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  const bool begins = llama_vocab_get_add_bos(vocab);
  for (std::size_t t = 0; t < texts.size(); ++t) {
    const std::string& text = texts[t];
    std::vector<llama_token> tokens(text.size() + 8);
    const int n = llama_tokenize(vocab, text.data(), static_cast<int>(text.size()), tokens.data(), static_cast<int>(tokens.size()), false, false);
    if (n <= 0) return fmt::format("-f {}: the text is empty", o.texts[t]);
    tokens.resize(static_cast<std::size_t>(n));
    out.texts.push_back({{"name", fs::path(o.texts[t]).filename().string()}, {"tokens", n}, {"hash", hash_of(text)}});
    for (int at = 0; at < n;) {
      std::vector<llama_token> prompt;
      if (begins) prompt.push_back(llama_vocab_bos(vocab));
      long long room = o.context - static_cast<long long>(prompt.size());
      if (o.max_tokens > 0) room = std::min(room, o.max_tokens - out.tokens - static_cast<long long>(prompt.size()));
      if (room < 1) return "";  // --max-tokens is reached
      const auto count = static_cast<int>(std::min<long long>(room, n - at));
      prompt.insert(prompt.end(), tokens.begin() + at, tokens.begin() + at + count);
      at += count;
      out.tokens += static_cast<long long>(prompt.size());
      out.all.push_back(std::move(prompt));
    }
  }
  return "";
}

// What of the settings a state was made with differs from these; "" if nothing does.
std::string other_settings(const Json& was, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    const Json before = was.is_object() && was.contains(key) ? was[key] : Json();
    if (before != value)
      return fmt::format("{}: {}, now {}", key, one_line(before.dump(-1, ' ', true, Json::error_handler_t::replace), 100), one_line(value.dump(), 100));
  }
  return "";
}

// The number of prompts done that a part file has, given back to the plug-in; 0 if there is no such file.
int resume(const std::string& part, const Json& settings, const Plugin& plugin, int prompts, std::string& error) {
  std::error_code bad;
  if (!fs::exists(part, bad)) return 0;
  const auto unusable = [&](const std::string& why) {
    error = fmt::format("{}: {}; give the settings it was made with, or another -o, or remove it", part, why);
    return 0;
  };
  auto text = read_small_file(part, kMostPartBytes);
  if (!text.ok()) return unusable(text.error().what);
  auto parsed = parse_json(text.value());
  if (!parsed.ok()) return unusable(parsed.error().what);
  const Json& j = parsed.value();
  if (!j.is_object() || j.value("format", Json()) != "lacuna-calibration" || j.value("version", Json()) != 1)
    return unusable("is no calibration of this version");
  if (const std::string why = other_settings(j.value("settings", Json()), settings); !why.empty())
    return unusable("is of other settings (" + why + ")");
  auto done = as_int(j.value("done", Json()), "done", 0, prompts);
  if (!done.ok()) return unusable(done.error().what);
  if (const std::string why = plugin.load_calibration(j.value("calibration", Json()).dump()); !why.empty()) return unusable(why);
  return static_cast<int>(done.value());
}

// Reads one prompt from an empty context; "" or the reason. Interrupted: it stops at a micro-batch.
std::string read_prompt(llama_context* context, const std::vector<llama_token>& prompt, int ubatch) {
  llama_memory_clear(llama_get_memory(context), true);
  const int total = static_cast<int>(prompt.size());
  for (int at = 0; at < total && !interrupted(); at += ubatch) {
    const int count = std::min(ubatch, total - at);
    if (const int code = decode(context, &prompt[static_cast<std::size_t>(at)], count, at, total - 1))
      return fmt::format("llama_decode failed at token {} (code {}): {}", at, code, last_log_errors());
    llama_synchronize(context);
  }
  return "";
}

// What the file says of the model, filled up with what the calls showed; an error where they differ.
Result<ModelFacts> joined(ModelFacts file, const ModelFacts& seen) {
  ModelFacts comparable = seen;
  comparable.n_layers = 0;  // some layers have no attention, or another's cache
  for (const std::string& d : differences(comparable, file))
    return unsupported(fmt::format("the model's file and its attention calls differ ({}): it has no one shape for a profile", d));
  if (file.n_layers < seen.n_layers) file.n_layers = seen.n_layers;
  file.hq = seen.hq;
  file.hkv = seen.hkv;
  file.dk = seen.dk;
  file.dv = seen.dv;
  if (file.rope.layout == RopeLayout::unknown)
    file.rope.layout = seen.rope.layout == RopeLayout::unknown ? RopeLayout::none : seen.rope.layout;
  if (file.rope.base == 0) file.rope.base = seen.rope.base;
  return file;
}

// The profile from the plug-in's answer {"model", "params", "data"}.
Result<Profile> profile_of(std::string_view slug, const std::string& found, const ModelFacts& file) {
  auto parsed = parse_json(found);
  if (!parsed.ok()) return parsed.error();
  const Json& j = parsed.value();
  auto seen = model_facts(j.value("model", Json()), "model", true);
  if (!seen.ok()) return seen.error();
  auto model = joined(file, seen.value());
  if (!model.ok()) return model.error();
  Profile p;
  p.slug = slug;
  p.model = model.value();
  p.params = j.value("params", Json::object());
  p.data = j.value("data", Json::object());
  return p;
}

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
  if (error = cut(model.get(), o, texts, prompts); !error.empty()) return bad_input(error);
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
  const int total = static_cast<int>(prompts.all.size()), resumed = resume(part, settings, plugin, total, error);
  if (!error.empty()) return bad_input(error);
  if (resumed > 0) note(fmt::format("{}: going on after {} of {} prompts", part, resumed, total));
  Progress bar("calibrating", prompts.tokens, "tokens");
  long long read = 0;
  for (int i = 0; i < total; ++i) {
    const auto& prompt = prompts.all[static_cast<std::size_t>(i)];
    if (i >= resumed) {
      if (error = read_prompt(context.get(), prompt, run.ubatch); !error.empty()) return bad_input(error);
      if (interrupted()) {  // what was seen of this prompt is in no part file
        bar.clear();
        note(fmt::format("interrupted after {} of {} prompts; {}", i, total,
                         i > 0 ? fmt::format("the same command goes on from {}", part) : "nothing is kept"));
        return kInterrupted;
      }
      const std::string state = plugin.calibration(false, error);
      if (!error.empty()) return bad_input(error);
      Json document = {{"format", "lacuna-calibration"}, {"version", 1}, {"settings", settings}, {"done", i + 1}};
      document["calibration"] = Json::parse(state, nullptr, false);
      if (const Status wrote = write_whole(part, document.dump()); !wrote.ok()) return bad_input(wrote.error().what);
    }
    read += static_cast<long long>(prompt.size());
    bar.update(read);
  }
  bar.clear();
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

// "" or why no profile can be written to `path`.
std::string check_output(const std::string& path) {
  std::error_code bad;
  const fs::path folder = fs::path(path).parent_path().empty() ? fs::path(".") : fs::path(path).parent_path();
  if (fs::is_directory(path, bad)) return fmt::format("-o {}: is a folder; name a file", path);
  if (!fs::is_directory(folder, bad) || access(folder.c_str(), W_OK) != 0)
    return fmt::format("-o {}: cannot write there; name a file in a writable folder", path);
  // A spec could not name it later.
  if (path.find_first_of(":,+ \t\r\n\v\f") != std::string::npos)
    return fmt::format("-o {}: a profile's path holds no ':', ',', '+' or white space; take another name", path);
  return "";
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
  for (const auto& p : describe_params(method))
    if (p.name == "profile" && !p.value.empty()) return bad_input(fmt::format("{}.profile: calibrate makes one; leave it out, -o names the file", method.card().slug));
  const auto calibrator = make_calibrator(method);
  if (!calibrator.ok()) return bad_input(calibrator.error().what);
  if (o.context == 0) o.context = calibrator.value()->prompt_tokens();
  for (const std::string& why : {check_output(o.output), sink.check()})
    if (!why.empty()) return bad_input(why);
  std::vector<std::string> texts(o.texts.size());
  std::string error;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (!read_text(o.texts[i], texts[i], error)) return bad_input(error);
    if (texts[i].size() > (1u << 30)) return bad_input(fmt::format("-f {}: at most 1 GiB is taken", o.texts[i]));
  }
  return calibrate(o, method, canonical_spec(method), texts, sink);
}

}  // namespace lacuna::cli
