// SPDX-License-Identifier: Apache-2.0
#include "cli/case/options.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

namespace lacuna::cli {

void CaseOptions::add_to(CLI::App& app) {
  app.add_option("CASES", words, "files of cases, or cases as quoted lines: 'attend hq=32 hkv=8 nq=512 nkv=8192 d=128'");
  app.add_option("-t,--threads", defaults.threads, "threads of cases that do not say (0 = one per core)")
      ->check(CLI::Range(0, 1024));
  app.add_option("--precision", defaults.precision, "fast or high, for cases that do not say")->type_name("NAME");
  app.add_option("--kernel", defaults.kernel, "one kernel by name, for cases that do not say")->type_name("NAME");
  app.add_option("--machine", defaults.machine, "pretend to be less: none, avx2, avx512, avx512bf16")->type_name("NAME");
  app.add_option("--seed", defaults.seed, "seed of the random tensors, for cases that do not say")->type_name("N");
  json.add_option(app);
}

std::vector<std::string> case_files(const std::string& prefix) {
  namespace fs = std::filesystem;
  std::vector<std::string> found;
  for (const fs::path& folder : {fs::path("cases"), fs::path(own_path()).parent_path() / "../../cases"}) {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (name.rfind(prefix, 0) == 0 && entry.path().extension() == ".txt")
        found.push_back(entry.path().lexically_normal().string());
    }
    if (!found.empty()) break;
  }
  std::sort(found.begin(), found.end());
  return found;
}

Result<std::vector<Case>> CaseOptions::read(const std::string& fallback) const {
  if (!words.empty()) return read_cases(words, defaults);
  const auto files = case_files(fallback);
  if (files.empty())
    return bad_file(fmt::format("no cases given, and no cases/{}*.txt here; give a file or a quoted case", fallback));
  return read_cases(files, defaults);
}

}  // namespace lacuna::cli
