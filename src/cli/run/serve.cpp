// SPDX-License-Identifier: Apache-2.0
// lacuna serve: llama-server with the plug-in loaded and a method chosen. What is wrong with the method
// is said before the server starts; every option that is not ours goes to it as it is.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/llama/find.h"
#include "cli/run/options.h"
#include "cli/verbs.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUsage = R"(Runs llama-server with a method of Lacuna.

usage: lacuna serve -m MODEL.gguf [options] [--] [llama-server's options]

  --method SPEC               slug:key=value..., or stock for llama.cpp as it is
                              (default: dense)
  --profile FILE              a profile of tune or calibrate: the method it is
                              for, with it
  --audit {off,sample,full}   how much of the lost mass to measure
                              (default: sample)
  --max-loss SHARE            keep the mean lost mass within this, as 1%
  --max-error SHARE           the same for the error of a head's output
  --certify SHARE             prove that no head of a decoded token loses more
  --precision {fast,high}     bf16 matrix units, or split and fp32
                              (default: fast)
  --windowed {dense,sparse}   layers whose rows see a window only: leave them
                              dense, or not (default: dense)
  --log TIME                  while it works, a line in its log as often as
                              this says what was kept and lost; 0 for none
                              (default: 60s)
  --report FILE               the report as JSON: with each of these lines, and
                              when the server ends
  -h, --help                  show this, then what llama-server takes

Every other option goes to llama-server untouched; behind -- all of them do.
When the server ends, one line on stderr says what was kept and lost.
)";

struct ServeOptions {
  std::string method, profile;  // one of them; method empty: dense
  std::string audit = "sample", precision = "fast", windowed = "dense", log = "60s", report;
  Limits limits;
  bool help = false;
  std::vector<std::string> rest;  // llama-server's
};

// CLI11 would read -md as -m d: only whole words are ours. "" or the reason.
std::string parse(int argc, char** argv, ServeOptions& o) {
  struct Ours {
    std::string_view name;
    std::string* value;
    std::vector<std::string> allowed;
  };
  const std::vector<Ours> ours = {{"--method", &o.method, {}},
                                  {"--profile", &o.profile, {}},
                                  {"--audit", &o.audit, {"off", "sample", "full"}},
                                  {"--max-loss", &o.limits.max_loss, {}},
                                  {"--max-error", &o.limits.max_error, {}},
                                  {"--certify", &o.limits.certify, {}},
                                  {"--precision", &o.precision, {"fast", "high"}},
                                  {"--windowed", &o.windowed, {"dense", "sparse"}},
                                  {"--log", &o.log, {}},
                                  {"--report", &o.report, {}}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--") {
      o.rest.insert(o.rest.end(), argv + i + 1, argv + argc);
      return "";
    }
    if (word == "-h" || word == "--help") {
      o.help = true;
      continue;
    }
    const std::string_view name = word.substr(0, word.find('='));
    const auto it = std::find_if(ours.begin(), ours.end(), [&](const Ours& x) { return x.name == name; });
    if (it == ours.end()) {
      o.rest.emplace_back(word);
      continue;
    }
    if (name.size() < word.size()) *it->value = word.substr(name.size() + 1);
    else if (i + 1 < argc) *it->value = argv[++i];
    else return fmt::format("{}: a value is missing; 'lacuna serve --help' shows what it takes", name);
    if (!it->allowed.empty() && std::find(it->allowed.begin(), it->allowed.end(), *it->value) == it->allowed.end())
      return fmt::format("{}: got '{}', need one of {}", name, *it->value, fmt::join(it->allowed, ", "));
  }
  return "";
}

// What the plug-in would refuse once the server is up. "" or the reason.
std::string check_log(const ServeOptions& o) {
  const std::string_view digits(o.log.data(), o.log.size() - (o.log.ends_with('s') ? 1 : 0));
  if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string_view::npos)
    return fmt::format("--log: got '{}', need seconds, as 60s: 1 to 86400, 0 for none", o.log);
  if (o.report.find_first_of(" \t\r\n") != std::string::npos)
    return fmt::format("--report: got '{}', need a name without blanks", o.report);
  return "";
}

// The value of llama-server's option, whichever of its names was used; empty if it was not.
std::string value_of(const std::vector<std::string>& words, std::initializer_list<std::string_view> names) {
  for (std::size_t i = 0; i + 1 < words.size(); ++i)
    if (std::find(names.begin(), names.end(), words[i]) != names.end()) return words[i + 1];
  return "";
}

// Becomes the server; returns only if that failed.
int become(const std::string& server, const std::vector<std::string>& rest) {
  std::vector<char*> words = {const_cast<char*>(server.c_str())};
  for (const std::string& word : rest) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  std::fflush(stdout);
  execv(server.c_str(), words.data());
  return bad_input(fmt::format("{}: cannot be started ({})", server, std::strerror(errno)));
}

int help() {
  fmt::print("{}", kUsage);
  std::string why;
  const std::string server = find_llama_tool("llama-server", why);
  if (server.empty()) {
    fmt::print("\nllama-server's own options are not shown: {}.\n", why);
    return kOk;
  }
  fmt::print("\nllama-server's options ({}):\n\n", server);
  return become(server, {"--help"});
}

}  // namespace

int verb_serve(int argc, char** argv) {
  ServeOptions o;
  if (const std::string why = parse(argc, argv, o); !why.empty()) return bad_input(why);
  if (o.help) return help();
  if (const std::string why = take_profile(o.profile, !o.method.empty(), o.method); !why.empty()) return bad_input(why);
  if (o.method.empty()) o.method = "dense";
  for (const std::string& wrong : {check_method(o.method), check_limits(o.limits), check_log(o)})
    if (!wrong.empty()) return bad_input(wrong);
  std::string why;
  const std::string server = find_llama_tool("llama-server", why);
  if (server.empty()) return bad_input(why);
  if (o.method == "stock") {
    unsetenv("LACUNA");
    unsetenv("GGML_BACKEND_PATH");
    return become(server, o.rest);
  }
  const std::string model = value_of(o.rest, {"-m", "--model"});
  if (const std::string wrong = model.empty() ? "" : check_profiles(o.method, model); !wrong.empty()) return bad_input(wrong);
  const std::string plugin = (fs::path(own_path()).parent_path() / "liblacuna-ggml.so").lexically_normal().string();
  std::error_code bad;
  if (!fs::exists(plugin, bad)) return bad_input(fmt::format("{}: the plug-in is not there; 'make build' makes it", plugin));
  if (cpu_builds(fs::path(server).parent_path()).empty())
    note(fmt::format("{}: its CPU part is linked in, so it may load no plug-in and run without Lacuna; 'make llama' builds one that does", server));
  if (const std::string flash = value_of(o.rest, {"-fa", "--flash-attn"}); flash == "off" || flash == "0")
    note("-fa off: llama.cpp then does the attention itself; leave it out, Lacuna takes flash attention only");
  for (const char* name : {"LACUNA", "GGML_BACKEND_PATH"})
    if (const char* value = std::getenv(name); value && *value)
      note(fmt::format("{}='{}' of the environment is replaced; serve has options for all they say", name, one_line(value, 80)));
  const std::string report = o.report.empty() ? "" : " report=" + o.report;
  setenv("LACUNA", fmt::format("{} audit={} precision={} windowed={} log={}{}{}", o.method, o.audit, o.precision, o.windowed, o.log, limit_words(o.limits), report).c_str(), 1);
  setenv("GGML_BACKEND_PATH", plugin.c_str(), 1);
  return become(server, o.rest);
}

}  // namespace lacuna::cli
