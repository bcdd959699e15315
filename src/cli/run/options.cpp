// SPDX-License-Identifier: Apache-2.0
#include "cli/run/options.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/machine.h"
#include "engine/registry.h"
#include "lacuna/lacuna.h"

namespace lacuna::cli {

void add_run_options(CLI::App& app, RunOptions& o) {
  app.set_help_flag("-h,--help", "show this");
  app.add_option("-m,--model", o.model, "the model, a GGUF file")->required()->type_name("FILE");
  app.add_option("-f,--file", o.file, "a text to read; - is stdin")->type_name("FILE");
  app.add_option("-p,--prompt", o.prompt, "what to ask (about the text, if there is one)")->type_name("TEXT");
  app.add_option("-n,--predict,--n-predict", o.predict, "tokens to generate at most")
      ->check(CLI::Range(0, 1 << 20))->capture_default_str();
  app.add_option("-c,--ctx-size", o.context, "tokens the context holds; 0 = what the prompt needs")
      ->check(CLI::Range(0, 1 << 26))->capture_default_str();
  app.add_option("-t,--threads", o.threads, "threads; 0 = one per core")->check(CLI::Range(0, 1024))->capture_default_str();
  app.add_option("-b,--batch-size", o.batch, "tokens of one call")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--ubatch-size", o.ubatch, "tokens of one micro-batch (also -ub)")
      ->check(CLI::Range(1, 1 << 20))->capture_default_str();
  app.add_option("--audit", o.audit, "how much of the lost mass to measure")
      ->check(CLI::IsMember({"off", "sample", "full"}))->capture_default_str();
  app.add_option("--max-loss", o.limits.max_loss, "keep the mean lost mass within this, bound included: heads stay dense where it must be")
      ->type_name("SHARE");
  app.add_option("--max-error", o.limits.max_error, "the same for the mean relative error of a head's output")->type_name("SHARE");
  app.add_option("--certify", o.limits.certify, "prove that no head of a decoded token loses more, keeping more keys until it holds; "
                 "100% = only tell what is proved")->type_name("SHARE");
  app.add_option("--precision", o.precision, "bf16 matrix units, or split and fp32")
      ->check(CLI::IsMember({"fast", "high"}))->capture_default_str();
  app.add_option("--windowed", o.windowed, "layers whose rows see a window only: leave them dense, or not")
      ->check(CLI::IsMember({"dense", "sparse"}))->capture_default_str();
  app.add_option("--kernel", o.kernel, "take this kernel and no other")->type_name("NAME");
  app.add_option("--machine", o.machine, "behave as a lesser machine: none, avx2, avx512, avx512bf16")->type_name("LEVEL");
  app.add_option("--seed", o.seed, "for whatever is drawn at random")->capture_default_str();
  const auto types = CLI::IsMember({"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"});
  app.add_option("--cache-type-k", o.cache_type_k, "type of the key cache (also -ctk)")->check(types)->capture_default_str();
  app.add_option("--cache-type-v", o.cache_type_v, "type of the value cache (also -ctv)")->check(types)->capture_default_str();
  app.add_flag("--no-chat", o.no_chat, "use no chat template");
  app.add_flag("-v,--verbose", o.verbose, "show llama.cpp's log");
}

std::string check_run_options(RunOptions& o) {
  if (o.file.empty() && o.prompt.empty()) return "no prompt: give -f FILE, -p TEXT, or both";
  if (o.threads == 0) o.threads = usable_cores();
  o.ubatch = std::min(o.ubatch, o.batch);  // as llama.cpp does
  for (const std::string* word : {&o.kernel, &o.machine})
    if (word->find_first_of(" \t\n") != std::string::npos) return fmt::format("'{}': a name has no blanks", *word);
  return check_limits(o.limits);
}

namespace {

// The limits that were asked for, by their names in a plug-in's text.
std::vector<std::pair<std::string, std::string>> asked(const Limits& x) {
  std::vector<std::pair<std::string, std::string>> out = {{"max_loss", x.max_loss}, {"max_error", x.max_error}, {"certify", x.certify}};
  std::erase_if(out, [](const auto& limit) { return limit.second.empty(); });
  return out;
}

}  // namespace

std::string limit_words(const Limits& limits) {
  std::string out;
  for (const auto& [key, value] : asked(limits)) out += fmt::format(" {}={}", key, value);
  return out;
}

std::string check_limits(const Limits& limits) {
  const auto words = asked(limits);
  for (const auto& [key, value] : words) {
    const auto read = parse_options(key + "=" + value);
    if (value.find_first_of(" \t\n") == std::string::npos && read.ok()) continue;
    if (key == "certify") return fmt::format("--certify: got '{}', need a share above 0 and up to 1, as 0.05 or 5%", value);
    return fmt::format("--{}: got '{}', need a share above 0 and below 1, as 0.01 or 1%", key == "max_loss" ? "max-loss" : "max-error", value);
  }
  if (words.size() > 1) return "--max-loss, --max-error and --certify: a run keeps one of them";
  return "";
}

std::string take_profile(const std::string& profile, bool method_given, std::string& method) {
  if (profile.empty()) return "";
  if (method_given) return "--profile and --method: a profile names its own method; give one of them";
  auto spec = spec_of_profile(profile);
  if (!spec.ok()) return "--" + spec.error().what;
  method = std::move(spec.value());
  return "";
}

std::string check_method(const std::string& spec) {
  if (spec == "stock") return "";
  auto method = make_method(spec);
  return method.ok() ? "" : method.error().what;
}

std::vector<std::string> to_arguments(const RunOptions& o) {
  std::vector<std::string> out = {
      "-m", o.model, "-n", std::to_string(o.predict), "-c", std::to_string(o.context),
      "-t", std::to_string(o.threads), "-b", std::to_string(o.batch), "--ubatch-size", std::to_string(o.ubatch),
      "--audit", o.audit, "--precision", o.precision, "--windowed", o.windowed, "--seed", std::to_string(o.seed),
      "--cache-type-k", o.cache_type_k, "--cache-type-v", o.cache_type_v};
  // One word each (--key=value), so that a value may begin with a dash.
  if (!o.file.empty()) out.push_back("--file=" + o.file);
  if (!o.prompt.empty()) out.push_back("--prompt=" + o.prompt);
  for (const auto& [option, value] : {std::pair{"--max-loss=", &o.limits.max_loss}, {"--max-error=", &o.limits.max_error}, {"--certify=", &o.limits.certify}})
    if (!value->empty()) out.push_back(option + *value);
  if (!o.kernel.empty()) out.push_back("--kernel=" + o.kernel);
  if (!o.machine.empty()) out.push_back("--machine=" + o.machine);
  if (o.no_chat) out.emplace_back("--no-chat");
  if (o.verbose) out.emplace_back("--verbose");
  return out;
}

std::string plugin_text(const RunOptions& o, const std::string& method) {
  std::string text = fmt::format("{} audit={} precision={} windowed={} seed={} quiet=1", method, o.audit, o.precision, o.windowed, o.seed);
  text += limit_words(o.limits);
  if (o.patterns) text += " patterns=1";
  if (!o.kernel.empty()) text += " kernel=" + o.kernel;
  if (!o.machine.empty()) text += " machine=" + o.machine;
  return text;
}

}  // namespace lacuna::cli
