// SPDX-License-Identifier: Apache-2.0
// Where an llama.cpp is: one order of places for every verb that needs one.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lacuna::cli {

// Folders that may hold llama.cpp, the likeliest first: those of $LLAMA_DIR, the one this program was
// built against, those of PATH, the copies `make llama` keeps in the cache (the newest first).
std::vector<std::filesystem::path> llama_places();

// The path of one of its tools ("llama-server"); empty, with the places looked at in `error`, if there
// is none. Where $LLAMA_DIR is set, nothing else is looked at: a wrong one is named, not passed over.
std::string find_llama_tool(const std::string& name, std::string& error);

// A folder with llama.cpp's shared libraries, and the CPU builds and tools in it.
struct Llama {
  std::string folder;
  std::vector<std::string> builds, tools;
  std::string ggml;      // what its ggml_version() says; empty = it cannot be asked
  int gcc = 0;           // major version of the GCC that built its CPU part; 0 = another or unknown
  bool by_make = false;  // built by 'make llama', which works around GCC's fault
};
Llama find_llama();

// The CPU builds (libggml-cpu-*.so) beside a tool or in the lib folder beside its own. None means that
// its CPU part is linked in, and that the tool loads plug-ins seldom or never.
std::vector<std::string> cpu_builds(const std::filesystem::path& folder);

}  // namespace lacuna::cli
