// SPDX-License-Identifier: Apache-2.0
// lacuna list: the methods, one line each.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/common.h"
#include "cli/task/task.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

namespace {

// Names in one column, what they do beside them.
void print_row(std::string_view name, std::size_t width, std::string_view what) {
  const std::string head = fmt::format("  {:<{}}  ", name, width);
  const std::string body = paragraph(what, std::string(head.size(), ' '));
  fmt::print("{}{}", head, body.substr(std::min(head.size(), body.size())));
}

int list_tasks(const JsonSink& json) {
  nlohmann::ordered_json tasks = nlohmann::ordered_json::array();
  std::size_t width = 0;
  for (const task::Task* t : task::all_tasks()) {
    tasks.push_back({{"name", t->name}, {"summary", t->summary}, {"paper", t->paper}, {"score", name_of(t->scoring)}});
    width = std::max(width, t->name.size());
  }
  if (json.wanted()) {
    if (const std::string why = json.write({{"tasks", tasks}}); !why.empty()) return bad_input(why);
    if (json.on_stdout()) return kOk;
  }
  for (const task::Task* t : task::all_tasks()) print_row(t->name, width, t->summary);
  fmt::print("\nlacuna compare -m MODEL --task NAME --methods A,B runs one; docs/compare.md tells of files of your own.\n");
  return kOk;
}

}  // namespace

int verb_list(int argc, char** argv) {
  CLI::App app("Lists the methods.", "list");
  JsonSink json;
  bool tasks = false;
  app.add_flag("--tasks", tasks, "list the tasks of compare instead");
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (tasks) return list_tasks(json);
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
    print_row(e.card->slug, width, fmt::format("{}{}", e.wraps ? "Wrapper: " : "", e.card->summary));
  }
  const auto methods = all_methods();
  if (std::any_of(methods.begin(), methods.end(), [](const MethodEntry& e) { return e.wraps; }))
    fmt::print("\nA wrapper changes what another method does: --method METHOD+WRAPPER.\n");
  fmt::print("\nlacuna show NAME tells what a method does and which parameters it takes.\n");
  return kOk;
}

}  // namespace lacuna::cli
