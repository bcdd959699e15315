// SPDX-License-Identifier: Apache-2.0
// lacuna list: the methods, one line each.
#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

int verb_list(int argc, char** argv) {
  CLI::App app("Lists the methods.", "list");
  JsonSink json;
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (json.wanted()) {
    nlohmann::ordered_json methods = nlohmann::ordered_json::array();
    for (const auto& e : all_methods()) {
      const Card& c = *e.card;
      methods.push_back({{"slug", c.slug}, {"title", c.title}, {"family", c.family}, {"paper", c.paper}, {"summary", c.summary}});
    }
    const std::string why = json.write({{"methods", methods}});
    if (!why.empty()) return bad_input(why);
    if (json.on_stdout()) return kOk;
  }
  std::size_t width = 0;
  for (const auto& e : all_methods()) width = std::max(width, e.card->slug.size());
  std::string_view family;
  for (const auto& e : all_methods()) {
    if (e.card->family != family) fmt::print("{}{}\n", family.empty() ? "" : "\n", bold(family = e.card->family));
    fmt::print("  {:<{}}  {}\n", e.card->slug, width, one_line(e.card->summary, 78 - width - 4));
  }
  fmt::print("\nlacuna show NAME tells what a method does and which parameters it takes.\n");
  return kOk;
}

}  // namespace lacuna::cli
