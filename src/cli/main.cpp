// SPDX-License-Identifier: Apache-2.0
// The command `lacuna`: a table of verbs and nothing else. A verb is one file.
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/verbs.h"

namespace {

using namespace lacuna::cli;

struct Verb {
  std::string_view name;
  std::string_view help;  // empty: not shown, for the program's own use
  int (*run)(int argc, char** argv);
};

constexpr Verb kVerbs[] = {
    {"run", "read a prompt with a model and answer it, and say what was kept and lost", verb_run},
    {"compare", "the same prompt with stock llama.cpp, dense, and each method", verb_compare},
    {"kl", "", verb_kl},
};

void print_help() {
  fmt::print("lacuna: sparse attention for transformers\n\nusage: lacuna VERB [options]    (lacuna VERB --help)\n\n");
  for (const Verb& v : kVerbs)
    if (!v.help.empty()) fmt::print("  {:<9} {}\n", v.name, v.help);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name.empty() || name == "--help" || name == "-h" || name == "help") {
    print_help();
    return name.empty() ? kBadInput : kOk;
  }
  if (name == "--version") {
    fmt::print("lacuna {}\n", LACUNA_VERSION);
    return kOk;
  }
  std::string known;
  for (const Verb& v : kVerbs) {
    if (v.name == name) return v.run(argc - 1, argv + 1);
    if (!v.help.empty()) known += fmt::format("{}{}", known.empty() ? "" : ", ", v.name);
  }
  return bad_input(fmt::format("unknown verb '{}'; there are {}", name, known));
}
