// SPDX-License-Identifier: Apache-2.0
// The command `lacuna`: a table of verbs and nothing else. A verb is one file.
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/words.h"
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
    {"list", "the methods", verb_list},
    {"show", "one method: paper, parameters with ranges, limits", verb_show},
    {"explain", "which plan and which kernel a call would get, and why", verb_explain},
    {"doctor", "what this machine can do, what was found, what is missing", verb_doctor},
    {"run", "answer a prompt with a model; say what was kept and lost", verb_run},
    {"compare", "the same prompt with stock llama.cpp, dense, and each method", verb_compare},
    {"serve", "llama-server with a method; it takes all of llama-server's options", verb_serve},
    {"calibrate", "make a profile: what a method has to know of a model", verb_calibrate},
    {"tune", "find each head's cheapest method within a lost mass, as a profile", verb_tune},
    {"check", "every kernel against the reference, case by case", verb_check},
    {"bench", "the speed of kernels, alone or against llama.cpp's own", verb_bench},
    {"docs", "write docs/generated, or check that it is up to date", verb_docs},
    {"task", "", verb_task},
    {"kl", "", verb_kl},
};

void print_help() {
  fmt::print("lacuna: sparse attention for transformers\n\nusage: lacuna VERB [options]    (lacuna VERB --help)\n\n");
  for (const Verb& v : kVerbs)
    if (!v.help.empty()) fmt::print("  {:<9} {}\n", v.name, v.help);
  fmt::print("\nexit codes: 0 good, 1 a check failed, 2 bad input, 130 interrupted (Ctrl-C)\n");
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
  std::vector<std::string> known;
  for (const Verb& v : kVerbs) {
    if (v.name == name) return v.run(argc - 1, argv + 1);
    if (!v.help.empty()) known.emplace_back(v.name);
  }
  const std::string near = lacuna::nearest(name, known);
  return bad_input(fmt::format("unknown verb '{}'{}; there are {}", name,
                               near.empty() ? "" : fmt::format(": did you mean '{}'?", near), fmt::join(known, ", ")));
}
