// SPDX-License-Identifier: Apache-2.0
// lacuna show SLUG: a method's card and its parameters. A whole spec is taken too; then the values
// are the spec's.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

int verb_show(int argc, char** argv) {
  CLI::App app("Shows what a method does, its parameters and its limits.", "show");
  std::string spec;
  JsonSink json;
  app.add_option("SLUG", spec, "a method, or a whole spec: xattention:stride=16")->required();
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  auto made = make_method(spec);
  if (!made.ok()) return bad_input(made.error().what);
  Method& method = *made.value();
  const Card& c = method.card();
  const auto params = describe_params(method);
  if (json.wanted()) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array(), exempt = nlohmann::ordered_json::array();
    for (const auto& p : params) list.push_back({{"name", p.name}, {"value", p.value}, {"range", p.range}, {"help", p.help}});
    for (const auto& e : c.exemptions) exempt.push_back({{"law", e.law}, {"reason", e.reason}});
    const std::string why = json.write({{"slug", c.slug},
                                        {"title", c.title},
                                        {"family", c.family},
                                        {"paper", c.paper},
                                        {"summary", c.summary},
                                        {"notes", c.notes},
                                        {"spec", canonical_spec(method)},
                                        {"parameters", list},
                                        {"exemptions", exempt}});
    if (!why.empty()) return bad_input(why);
    if (json.on_stdout()) return kOk;
  }
  fmt::print("{}  {}\n", bold(c.slug), c.title);
  fmt::print("{}\n", paragraph(fmt::format("{} [{}; {}]", c.summary, c.paper, c.family), "  "));
  if (params.empty()) fmt::print("It takes no parameters.\n");
  else fmt::print("{}\n", bold("parameters"));
  std::size_t name = 0, value = 0, range = 0;
  for (const auto& p : params) {
    name = std::max(name, p.name.size());
    value = std::max(value, p.value.size());
    range = std::max(range, p.range.size());
  }
  for (const auto& p : params) {
    const std::string head = fmt::format("  {:<{}}  {:>{}}  {:<{}}  ", p.name, name, p.value, value, p.range, range);
    const std::string text = paragraph(p.help, std::string(head.size(), ' '));
    fmt::print("{}{}", head, text.substr(std::min(head.size(), text.size())));
  }
  if (!params.empty()) fmt::print("  preset=auto or preset=paper sets all of them; single values win.\n");
  if (!c.notes.empty()) fmt::print("\n{}\n{}", bold("notes"), paragraph(c.notes, "  "));
  if (!c.exemptions.empty()) fmt::print("\n{}\n", bold("laws it does not obey"));
  for (const auto& e : c.exemptions) fmt::print("{}", paragraph(fmt::format("{}: {}", e.law, e.reason), "  "));
  fmt::print("\nlacuna run -m MODEL.gguf -f FILE --method {}\n", spec);
  return kOk;
}

}  // namespace lacuna::cli
