// SPDX-License-Identifier: Apache-2.0
// lacuna show SLUG: a method's card and its parameters. A whole spec is taken too; then the values
// are the spec's, and each wrapper is shown behind its base.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {
namespace {

nlohmann::ordered_json as_json(Method& method) {
  const Card& c = method.card();
  nlohmann::ordered_json list = nlohmann::ordered_json::array(), exempt = nlohmann::ordered_json::array();
  for (const auto& p : describe_params(method)) list.push_back({{"name", p.name}, {"value", p.value}, {"range", p.range}, {"help", p.help}});
  for (const auto& e : c.exemptions) exempt.push_back({{"law", e.law}, {"reason", e.reason}});
  return {{"slug", c.slug},       {"title", c.title}, {"family", c.family},   {"paper", c.paper},
          {"summary", c.summary}, {"notes", c.notes}, {"parameters", list}, {"exemptions", exempt}};
}

void print(Method& method) {
  const Card& c = method.card();
  const auto params = describe_params(method);
  fmt::print("{}  {}\n", bold(c.slug), c.title);
  fmt::print("{}\n", paragraph(fmt::format("{} [{}; {}]", c.summary, c.paper, c.family), "  "));
  if (params.empty()) fmt::print("It takes no parameters.\n");
  else fmt::print("{}\n", bold("parameters"));
  std::size_t name = 0, value = 0, range = 0;
  const auto shown = [](const ParamInfo& p) { return p.value.empty() ? std::string("none") : p.value; };
  for (const auto& p : params) {
    name = std::max(name, p.name.size());
    value = std::max(value, shown(p).size());
    range = std::max(range, p.range.size());
  }
  for (const auto& p : params) {
    const std::string head = fmt::format("  {:<{}}  {:>{}}  {:<{}}  ", p.name, name, shown(p), value, p.range, range);
    const std::string text = paragraph(p.help, std::string(head.size(), ' '));
    fmt::print("{}{}", head, text.substr(std::min(head.size(), text.size())));
  }
  if (!params.empty()) fmt::print("  preset=auto or preset=paper sets all of them; single values win.\n");
  if (!c.notes.empty()) fmt::print("\n{}\n{}", bold("notes"), paragraph(c.notes, "  "));
  if (!c.exemptions.empty()) fmt::print("\n{}\n", bold("laws it does not obey"));
  for (const auto& e : c.exemptions) fmt::print("{}", paragraph(fmt::format("{}: {}", e.law, e.reason), "  "));
}

}  // namespace

int verb_show(int argc, char** argv) {
  CLI::App app("Shows what a method does, its parameters and its limits.", "show");
  std::string spec;
  JsonSink json;
  app.add_option("SLUG", spec, "a method, or a whole spec: xattention:stride=16")->required();
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  auto made = make_method(spec, {.lone_wrapper = true, .profiles = false});
  if (!made.ok()) return bad_input(made.error().what);
  const auto chain = chain_of(*made.value());
  if (json.wanted()) {
    nlohmann::ordered_json document = as_json(*chain[0]);
    document["spec"] = canonical_spec(*made.value());
    document["wrappers"] = nlohmann::ordered_json::array();
    for (std::size_t i = 1; i < chain.size(); ++i) document["wrappers"].push_back(as_json(*chain[i]));
    if (const std::string why = json.write(document); !why.empty()) return bad_input(why);
    if (json.on_stdout()) return kOk;
  }
  for (std::size_t i = 0; i < chain.size(); ++i) {
    if (i > 0) fmt::print("\n{}\n", bold("with the wrapper"));
    print(*chain[i]);
  }
  const auto methods = all_methods();
  const bool alone = chain.size() == 1 && std::any_of(methods.begin(), methods.end(), [&](const MethodEntry& e) {
                       return e.wraps && e.card->slug == chain[0]->card().slug;
                     });
  fmt::print("\nlacuna run -m MODEL.gguf -f FILE --method {}{}\n", alone ? "METHOD+" : "", spec);
  return kOk;
}

}  // namespace lacuna::cli
