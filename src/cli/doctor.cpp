// SPDX-License-Identifier: Apache-2.0
// lacuna doctor: what this machine and this build can do, what was found, what is missing and how to
// get it. Exit code 1 if something that Lacuna needs is missing.
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/processor.h"
#include "cli/common.h"
#include "cli/llama/find.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/pick.h"

#ifndef LACUNA_LLAMA_BIN
#define LACUNA_LLAMA_BIN ""
#define LACUNA_LLAMA_VERSION ""
#endif

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;

struct Finding {
  const char* state;  // "ok", "note" or "missing"
  std::string what, detail, mend;
};

std::string compiler() {
#if defined(__clang__)
  return fmt::format("clang {}.{}", __clang_major__, __clang_minor__);
#elif defined(__GNUC__)
  return fmt::format("g++ {}.{}", __GNUC__, __GNUC_MINOR__);
#else
  return "unknown";
#endif
}

// GCC before 13 believes that a tile configuration's load reads 8 of its 64 bytes and drops the rest:
// what it built dies by SIGILL in AMX code, unless it was told -fno-tree-dse -fno-dse.
constexpr bool compiler_drops_tile_config() {
#if defined(__GNUC__) && !defined(__clang__)
  return __GNUC__ < 13;
#else
  return false;
#endif
}

double memory_bytes() {
  std::ifstream in("/proc/meminfo");
  std::string word;
  for (double kib = 0; in >> word;)
    if (word == "MemTotal:" && in >> kib) return kib * 1024;
  return 0;
}

// The kernel of op attend that a prefill call with f16 K and V would get; the features decide.
std::string best_kernel(Features have) {
  for (const auto* k : kernel::attend_list)
    if (!k->only_forced && (have & k->needs) == k->needs && std::strstr(k->name, "decode") == nullptr) return k->name;
  return "none";
}

// Whether the plug-in takes a ggml of this version, and no answer when there is no plug-in to ask.
std::optional<bool> plugin_takes(const fs::path& plugin, const std::string& version) {
  void* handle = dlopen(plugin.c_str(), RTLD_LAZY | RTLD_LOCAL);
  const auto takes = handle ? reinterpret_cast<int (*)(const char*)>(dlsym(handle, "lacuna_takes_ggml")) : nullptr;
  return takes ? std::optional<bool>(takes(version.c_str()) != 0) : std::nullopt;
}

std::vector<fs::path> files_below(const char* folder, const char* extension) {
  std::vector<fs::path> out;
  for (const fs::path& root : {fs::path("models"), fs::path(own_path()).parent_path() / "../../models"}) {
    std::error_code bad;
    for (const auto& entry : fs::directory_iterator(root / folder, bad))
      if (entry.path().extension() == extension) out.push_back(entry.path().lexically_normal());
    if (!out.empty()) break;
  }
  std::sort(out.begin(), out.end());
  return out;
}

bool begins_as_gguf(const fs::path& file) {
  char magic[4] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof magic);
  return std::memcmp(magic, "GGUF", 4) == 0;
}

std::vector<Finding> examine() {
  std::vector<Finding> out;
  const Features have = detect_features();
  out.push_back({"ok", "processor", fmt::format("{}, {} cores for this process, {}", one_line(processor_name(), 60), usable_cores(), human_bytes(memory_bytes())), ""});
  if (have & kAvx2)
    out.push_back({"ok", "features", describe(have), ""});
  else
    out.push_back({"missing", "features", "no AVX2 with FMA and F16C: only the slow reference runs, and nothing is left out",
                   "use an x86-64 processor from 2013 or later"});
  out.push_back({"ok", "kernel", fmt::format("{} (precision fast); lacuna explain shows the choice", best_kernel(have)), ""});
  if (!(have & kAmxBf16) && (have & kAvx512Bf16))
    out.push_back({"note", "AMX", "this machine has none, or the system does not grant it; AVX512-BF16 is used", ""});
  if (compiler_drops_tile_config())
    out.push_back({"note", "compiler",
                   compiler() + " drops AMX tile configurations (fixed in GCC 13). Lacuna writes AMX as assembly and is "
                                "not affected; a llama.cpp built natively with it dies by SIGILL on Q4_1 weights",
                   "build llama.cpp with -fno-tree-dse -fno-dse, or with clang; 'make llama' does"});
  else
    out.push_back({"ok", "compiler", compiler(), ""});
  const fs::path plugin = fs::path(own_path()).parent_path() / "liblacuna-ggml.so";

  const Llama llama = find_llama();
  const std::string version = LACUNA_LLAMA_VERSION;
  if (llama.folder.empty()) {
    out.push_back({"missing", "llama.cpp", "no shared libllama here: run, compare and bench --peer need one",
                   "'make llama build' gets one; or set LLAMA_DIR to yours"});
  } else {
    out.push_back({"ok", "llama.cpp", fmt::format("{}{}{}", llama.folder, version.empty() ? "" : ", built against ", version), ""});
    if (llama.ggml.empty())
      out.push_back({"note", "its ggml", "of unknown version: libggml-base.so does not tell", "'make llama' builds one that is known"});
    else if (const auto taken = plugin_takes(plugin, llama.ggml); taken && !*taken)
      out.push_back({"missing", "its ggml", llama.ggml + ": the plug-in was not tested with it and refuses to load",
                     "'make llama' builds one that fits; or set LLAMA_DIR to another"});
    else
      out.push_back({"ok", "its ggml", llama.ggml + (taken ? ", which the plug-in takes" : ""), ""});
    if (llama.gcc > 0 && llama.gcc < 13 && llama.by_make)
      out.push_back({"ok", "its compiler", fmt::format("GCC {}, told to keep AMX tile configurations ('make llama')", llama.gcc), ""});
    else if (llama.gcc > 0 && llama.gcc < 13)
      out.push_back({"note", "its compiler",
                     fmt::format("GCC {} drops AMX tile configurations: on a machine with AMX it may die by SIGILL on Q4_1 weights", llama.gcc),
                     "'make llama' builds one that does not"});
    if (llama.builds.empty())
      out.push_back({"note", "its builds", "no libggml-cpu*.so: its CPU part is linked in, so tools load plug-ins only with --device or -ot",
                     "'make llama' builds one with GGML_BACKEND_DL"});
    else
      out.push_back({"ok", "its builds", fmt::format("{}", fmt::join(llama.builds, " ")), ""});
    if (llama.tools.empty()) out.push_back({"note", "its tools", "none beside it", "'make llama' builds them"});
    else out.push_back({"ok", "its tools", fmt::format("{}", fmt::join(llama.tools, " ")), ""});
  }
  if (!*LACUNA_LLAMA_BIN && version.empty())
    out.push_back({"missing", "run, compare", "this program was built without llama.cpp", "'make llama build'"});
  std::error_code bad;
  if (fs::exists(plugin, bad)) out.push_back({"ok", "plug-in", plugin.lexically_normal().string(), ""});
  else out.push_back({"missing", "plug-in", plugin.lexically_normal().string() + " is not there", "'make build'"});
  for (const char* name : {"GGML_BACKEND_PATH", "LACUNA"})
    if (const char* value = std::getenv(name); value && *value)
      out.push_back({"note", name, fmt::format("is set to '{}'", one_line(value, 80)), ""});

  const auto models = files_below("", ".gguf");
  if (models.empty()) out.push_back({"note", "models", "none in models/; -m takes any GGUF file", "'make models' gets two small ones"});
  for (const fs::path& m : models) {
    if (begins_as_gguf(m))
      out.push_back({"ok", "model", fmt::format("{} ({})", m.string(), human_bytes(static_cast<double>(fs::file_size(m, bad)))), ""});
    else
      out.push_back({"note", "model", m.string() + " is no GGUF file", "'make models' gets it anew"});
  }
  const auto texts = files_below("texts", ".txt");
  if (texts.empty()) out.push_back({"note", "texts", "none in models/texts/", "'make models' gets some"});
  else out.push_back({"ok", "texts", fmt::format("{} in {}", texts.size(), texts[0].parent_path().string()), ""});
  return out;
}

}  // namespace

int verb_doctor(int argc, char** argv) {
  CLI::App app("Says what this machine can do, what was found, and what is missing.", "doctor");
  JsonSink json;
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  const auto findings = examine();
  int missing = 0;
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& f : findings) {
    missing += !std::strcmp(f.state, "missing");
    list.push_back({{"state", f.state}, {"what", f.what}, {"detail", f.detail}, {"mend", f.mend}});
  }
  if (json.wanted()) {
    const std::string why = json.write({{"version", LACUNA_VERSION},
                                        {"compiler", compiler()},
                                        {"compiler_drops_tile_config", compiler_drops_tile_config()},
                                        {"features", describe(detect_features())},
                                        {"cores", usable_cores()},
                                        {"missing", missing},
                                        {"findings", list}});
    if (!why.empty()) return bad_input(why);
    if (json.on_stdout()) return missing ? kFailedCheck : kOk;
  }
  fmt::print("lacuna {}\n\n", LACUNA_VERSION);
  for (const Finding& f : findings) {
    const std::string head = fmt::format("{:<8}{:<14}", f.state, f.what), indent(22, ' ');
    const std::string body = paragraph(f.detail, indent);
    fmt::print("{}{}", f.state[0] == 'm' ? bold(head) : head, body.substr(std::min(indent.size(), body.size())));
    if (!f.mend.empty()) fmt::print("{}", paragraph("-> " + f.mend, indent));
  }
  if (missing) fmt::print("\n{} missing; the lines with -> say how to get it.\n", missing == 1 ? "One thing is" : fmt::format("{} things are", missing));
  else fmt::print("\nNothing is missing.\n");
  return missing ? kFailedCheck : kOk;
}

}  // namespace lacuna::cli
