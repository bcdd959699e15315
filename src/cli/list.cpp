// SPDX-License-Identifier: Apache-2.0
// lacuna list: the methods, one line each.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/text.h"
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
      methods.push_back({{"slug", c.slug}, {"title", c.title}, {"family", c.family}, {"paper", c.paper}, {"summary", c.summary}, {"wrapper", e.wraps}});
    }
    const std::string why = json.write({{"methods", methods}});
    if (!why.empty()) return bad_input(why);
    if (json.on_stdout()) return kOk;
  }
  std::size_t width = 0;
  for (const auto& e : all_methods()) width = std::max(width, e.card->slug.size());
  std::string_view family;
  for (const auto& e : all_methods()) {
    if (e.card->family != family) fmt::print("{}{}\n", family.empty() ? "" : "\n", bold(e.card->family));
    family = e.card->family;
    const std::string head = fmt::format("  {:<{}}  ", e.card->slug, width);
    const std::string body = paragraph(fmt::format("{}{}", e.wraps ? "Wrapper: " : "", e.card->summary), std::string(head.size(), ' '));
    fmt::print("{}{}", head, body.substr(std::min(head.size(), body.size())));
  }
  const auto methods = all_methods();
  if (std::any_of(methods.begin(), methods.end(), [](const MethodEntry& e) { return e.wraps; }))
    fmt::print("\nA wrapper changes what another method does: --method METHOD+WRAPPER.\n");
  fmt::print("\nlacuna show NAME tells what a method does and which parameters it takes.\n");
  return kOk;
}

}  // namespace lacuna::cli
