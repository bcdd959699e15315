// SPDX-License-Identifier: Apache-2.0
// The text of the LACUNA variable, as the C interface and the plug-in read it.
#include <fmt/format.h>

#include "fuzz/fuzz.h"
#include "host/ggml/config.h"

namespace lacuna::fuzz {

std::string options(Bytes bytes) {
  const std::string text(text_of(bytes));
  const auto taken = parse_options(text);
  if (!taken.ok() && taken.error().what.empty()) return "refused without a word";
  if (taken.ok() && taken.value().method.find_first_of(" \t\r\n") != std::string::npos)
    return fmt::format("method '{}' holds white space", taken.value().method);
  // The plug-in tries the method out, which reads the file of a profile: such texts end here.
  if (text.find("profile") != std::string::npos) return "";
  const auto config = ggml::parse_config(text);
  if (!config.ok()) return config.error().what.empty() ? "the plug-in refuses without a word" : "";
  if (config.value().options.threads != 0) return "the plug-in took a number of threads, which are the host's";
  return "";
}

}  // namespace lacuna::fuzz

LACUNA_FUZZ_TARGET(options)
