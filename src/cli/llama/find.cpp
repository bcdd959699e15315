// SPDX-License-Identifier: Apache-2.0
#include "cli/llama/find.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include <fmt/format.h>

#include "base/cache_dir.h"

#ifndef LACUNA_LLAMA_BIN
#define LACUNA_LLAMA_BIN ""
#endif

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

void add_dir(std::vector<fs::path>& places, const fs::path& dir) {
  for (const char* sub : {"bin", "lib", "."}) places.push_back(dir / sub);
}

// Finished copies of tools/get_llama.sh: it writes STAMP last.
void add_cache(std::vector<fs::path>& places) {
  const fs::path cache = cache_dir();
  if (cache.empty()) return;
  std::vector<fs::path> copies;
  std::error_code bad;
  for (const auto& entry : fs::directory_iterator(cache, bad))
    if (entry.path().filename().string().starts_with("llama-") && fs::exists(entry.path() / "STAMP", bad))
      copies.push_back(entry.path());
  std::sort(copies.begin(), copies.end(), [](const fs::path& a, const fs::path& b) {
    std::error_code unread;
    return fs::last_write_time(a / "STAMP", unread) > fs::last_write_time(b / "STAMP", unread);
  });
  for (const auto& copy : copies) places.push_back(copy / "bin");
}

// What a version function of a library answers; the library is loaded for the question.
std::string ggml_version_of(const fs::path& library) {
  void* handle = dlopen(library.c_str(), RTLD_LAZY | RTLD_LOCAL);
  const auto version = handle ? reinterpret_cast<const char* (*)()>(dlsym(handle, "ggml_version")) : nullptr;
  return version ? version() : "";
}

// GCC leaves "GCC: (Debian 12.2.0-14) 12.2.0" in the section .comment of what it builds.
int gcc_of(const fs::path& library) {
  std::ifstream in(library, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  const std::size_t mark = all.rfind("GCC: ("), close = all.find(')', mark == std::string::npos ? all.size() : mark);
  return close == std::string::npos ? 0 : std::atoi(all.c_str() + close + 1);
}

}  // namespace

std::vector<fs::path> llama_places() {
  std::vector<fs::path> places;
  if (const std::string dir = variable("LLAMA_DIR"); !dir.empty()) add_dir(places, dir);
  if (*LACUNA_LLAMA_BIN) places.emplace_back(LACUNA_LLAMA_BIN);
  const std::string path = variable("PATH");
  for (std::size_t at = 0; at < path.size();) {
    const std::size_t end = std::min(path.find(':', at), path.size());
    const fs::path folder = path.substr(at, end - at);
    at = end + 1;
    std::error_code bad;
    if (folder.empty() || !fs::exists(folder / "llama-server", bad)) continue;
    places.push_back(folder);
    places.push_back(folder.parent_path() / "lib");
  }
  add_cache(places);
  return places;
}

std::string find_llama_tool(const std::string& name, std::string& error) {
  const std::string dir = variable("LLAMA_DIR");
  std::vector<fs::path> places;
  if (!dir.empty()) add_dir(places, dir);
  else places = llama_places();
  for (const fs::path& place : places) {
    std::error_code bad;
    const fs::path tool = place / name;
    if (fs::is_regular_file(tool, bad) && access(tool.c_str(), X_OK) == 0) return tool.lexically_normal().string();
  }
  error = dir.empty() ? fmt::format("no {} on PATH, in LLAMA_DIR or in Lacuna's cache; 'make llama' gets one", name)
                      : fmt::format("LLAMA_DIR={}: no {} in it or in its bin; name the folder that has it, or unset LLAMA_DIR", dir, name);
  return "";
}

std::vector<std::string> cpu_builds(const fs::path& folder) {
  std::vector<std::string> builds;
  for (const fs::path& place : {folder, folder.parent_path() / "lib"}) {
    std::error_code bad;
    for (const auto& entry : fs::directory_iterator(place, bad)) {
      const std::string name = entry.path().filename().string();
      if (name.rfind("libggml-cpu", 0) == 0 && entry.path().extension() == ".so")
        builds.push_back(name.size() > 14 ? name.substr(12, name.size() - 15) : "cpu");
    }
    if (!builds.empty()) break;
  }
  std::sort(builds.begin(), builds.end());
  return builds;
}

Llama find_llama() {
  for (const fs::path& place : llama_places()) {
    std::error_code bad;
    if (!fs::exists(place / "libllama.so", bad) && !fs::exists(place / "libggml.so", bad)) continue;
    Llama found;
    found.folder = fs::weakly_canonical(place, bad).string();
    found.builds = cpu_builds(place);
    found.ggml = ggml_version_of(place / "libggml-base.so");
    found.by_make = fs::exists(place / "../STAMP", bad);
    for (const auto& entry : fs::directory_iterator(place, bad)) {
      const std::string name = entry.path().filename().string();
      if (name.rfind("libggml-cpu", 0) == 0 && entry.path().extension() == ".so") found.gcc = gcc_of(entry.path());
      if (name == "llama-server" || name == "llama-bench" || name == "llama-completion" || name == "llama-perplexity")
        found.tools.push_back(name);
    }
    std::sort(found.tools.begin(), found.tools.end());
    return found;
  }
  return {};
}

}  // namespace lacuna::cli
