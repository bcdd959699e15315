// SPDX-License-Identifier: Apache-2.0
#include "engine/registry.h"

#include <charconv>
#include <cmath>

#include <fmt/format.h>

#include "base/words.h"

namespace lacuna {

namespace method {
#define LACUNA_ENTRY(family, slug) const MethodEntry& method_entry_##slug();
#include "method/list.inc"
#undef LACUNA_ENTRY
}  // namespace method

std::span<const MethodEntry> all_methods() {
  static const MethodEntry entries[] = {
#define LACUNA_ENTRY(family, slug) method::method_entry_##slug(),
#include "method/list.inc"
#undef LACUNA_ENTRY
  };
  return entries;
}

namespace {
constexpr const char* kNoSuchValues =
    "a value holds no ':', ',', '+' or white space: link or rename a file that has them in its name";
}  // namespace

std::vector<std::string> split_methods(std::string_view specs) {
  std::vector<std::string> out;
  while (!specs.empty()) {
    const std::size_t comma = specs.find(',');
    if (comma != 0) out.emplace_back(specs.substr(0, comma));
    specs.remove_prefix(comma == std::string_view::npos ? specs.size() : comma + 1);
  }
  return out;
}

Result<std::vector<SpecPart>> parse_spec(std::string_view spec) {
  constexpr std::size_t kLongest = 4096;
  if (spec.size() > kLongest)
    return bad_argument(fmt::format("method spec: {} characters, at most {} are taken", spec.size(), kLongest));
  std::vector<SpecPart> parts;
  for (std::size_t at = 0; at <= spec.size();) {
    const std::size_t end = std::min(spec.find('+', at), spec.size());
    std::string_view text = spec.substr(at, end - at);
    at = end + 1;
    SpecPart part;
    std::size_t colon = text.find(':');
    part.slug = std::string(text.substr(0, colon));
    if (part.slug.empty())
      return bad_argument(fmt::format("method spec '{}': a method name is missing; write slug:key=value", spec));
    while (colon != std::string_view::npos) {
      text.remove_prefix(colon + 1);
      colon = text.find(':');
      const std::string_view pair = text.substr(0, colon);
      const std::size_t equals = pair.find('=');
      if (equals == std::string_view::npos || equals == 0 || equals + 1 == pair.size()) {
        // A path with a ':' in it was cut there.
        const bool path = !part.values.empty() && part.values.back().second.find('/') != std::string::npos;
        return bad_argument(fmt::format("method spec '{}': '{}' is not key=value{}", spec, pair,
                                        path ? std::string("; ") + kNoSuchValues : ""));
      }
      part.values.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

namespace {

std::string number(double x) { return fmt::format("{:g}", x); }

// Sets one parameter from text; remembers the names it saw for the error message.
class Setter final : public ParamVisitor {
 public:
  Setter(std::string_view slug, std::string_view key, std::string_view text)
      : slug_(slug), key_(key), text_(text) {}
  void operator()(std::int64_t& value, std::string_view name, std::int64_t lo, std::int64_t hi,
                  std::string_view) override {
    if (!matches(name)) return;
    std::int64_t x = 0;
    const auto [end, bad] = std::from_chars(text_.data(), text_.data() + text_.size(), x);
    if (bad != std::errc{} || end != text_.data() + text_.size())
      error = fmt::format("{}.{}: '{}' is not a whole number; need {}..{}", slug_, name, text_, lo, hi);
    else if (x < lo || x > hi)
      error = fmt::format("{}.{}: got {}, need {}..{}", slug_, name, x, lo, hi);
    else
      value = x;
  }
  void operator()(double& value, std::string_view name, double lo, double hi, std::string_view,
                  bool open_low) override {
    if (!matches(name)) return;
    double x = 0;
    const auto [end, bad] = std::from_chars(text_.data(), text_.data() + text_.size(), x);
    const std::string range = fmt::format("{} {}, at most {}", open_low ? "more than" : "at least", number(lo), number(hi));
    if (bad != std::errc{} || end != text_.data() + text_.size() || std::isnan(x))
      error = fmt::format("{}.{}: '{}' is not a number; need {}", slug_, name, text_, range);
    else if (x < lo || x > hi || (open_low && x == lo))
      error = fmt::format("{}.{}: got {}, need {}", slug_, name, number(x), range);
    else
      value = x;
  }
  void operator()(bool& value, std::string_view name, std::string_view) override {
    if (!matches(name)) return;
    if (text_ == "on" || text_ == "true" || text_ == "1") value = true;
    else if (text_ == "off" || text_ == "false" || text_ == "0") value = false;
    else error = fmt::format("{}.{}: got '{}', need on or off", slug_, name, text_);
  }
  void operator()(std::string& value, std::string_view name, std::string_view allowed, std::string_view) override {
    if (!matches(name)) return;
    if (text_.find_first_of(":,+ \t\r\n\v\f") != std::string_view::npos)
      error = fmt::format("{}.{}: got '{}'; {}", slug_, name, text_, kNoSuchValues);
    else if (!allowed.empty() && !is_one_of(text_, allowed))
      error = fmt::format("{}.{}: got '{}', need {}", slug_, name, text_, allowed);
    else
      value = text_;
  }
  bool found = false;
  std::string error;
  std::vector<std::string> names;

 private:
  static bool is_one_of(std::string_view word, std::string_view allowed) {
    for (std::size_t at = 0; at <= allowed.size();) {
      const std::size_t end = std::min(allowed.find('|', at), allowed.size());
      if (allowed.substr(at, end - at) == word) return true;
      at = end + 1;
    }
    return false;
  }
  bool matches(std::string_view name) {
    names.emplace_back(name);
    if (name == key_) found = true;
    return name == key_;
  }
  std::string_view slug_, key_, text_;
};

class Describer final : public ParamVisitor {
 public:
  void operator()(std::int64_t& value, std::string_view name, std::int64_t lo, std::int64_t hi,
                  std::string_view help) override {
    out.push_back({std::string(name), fmt::format("{}", value), fmt::format("{}..{}", lo, hi), std::string(help)});
  }
  void operator()(double& value, std::string_view name, double lo, double hi, std::string_view help,
                  bool open_low) override {
    out.push_back({std::string(name), number(value),
                   fmt::format("{}{}..{}", open_low ? ">" : "", number(lo), number(hi)), std::string(help)});
  }
  void operator()(bool& value, std::string_view name, std::string_view help) override {
    out.push_back({std::string(name), value ? "on" : "off", "on|off", std::string(help)});
  }
  void operator()(std::string& value, std::string_view name, std::string_view allowed, std::string_view help) override {
    out.push_back({std::string(name), value, allowed.empty() ? "text" : std::string(allowed), std::string(help)});
  }
  std::vector<ParamInfo> out;
};

std::string list_of(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

// The entry of a slug among methods, or among wrappers.
Result<const MethodEntry*> find_entry(const SpecPart& part, bool wrapper, const MakeOptions& options) {
  std::vector<std::string> slugs;
  for (const auto& e : options.methods) {
    if (e.card->slug == part.slug) return &e;
    if (e.wraps == wrapper) slugs.emplace_back(e.card->slug);
  }
  std::string near = nearest(part.slug, slugs);
  if (!near.empty()) near = fmt::format(": did you mean '{}'?", near);
  if (!wrapper) return unknown_name(fmt::format("unknown method '{}'{}; 'lacuna list' shows all", part.slug, near));
  return unknown_name(fmt::format("unknown wrapper '{}'{}; 'lacuna list' marks them{}", part.slug, near,
                                  part.slug.find_first_of("/.") == std::string::npos ? "" : fmt::format("; {}", kNoSuchValues)));
}

Status make_parts(Method& method, const MakeOptions& options);

// Reads the file of the method's own parameter `profile`, if it has one that is set.
Status use_profile(Method& method, const MakeOptions& options) {
  const std::string_view slug = method.card().slug;
  std::string path;
  for (const auto& p : describe_params(method))
    if (p.name == "profile") path = p.value;
  const std::string_view from = method.card().profile_from;
  const std::string make = fmt::format("'{} -m MODEL -f TEXT -o FILE' makes one", from.empty() ? fmt::format("lacuna calibrate {}", slug) : std::string(from));
  if (path.empty()) {
    if (!method.card().needs_profile) return {};
    return bad_argument(fmt::format("{} needs a profile of the model: {}, then {}:profile=FILE", slug, make, slug));
  }
  const auto profile = read_profile(path);
  if (!profile.ok()) return bad_file(fmt::format("{}.profile: {}", slug, profile.error().what));
  if (profile.value().slug != slug)
    return bad_file(fmt::format("{}.profile: {}: slug: got '{}', need '{}'; {}", slug, path, profile.value().slug, slug, make));
  Status used = method.use(profile.value());
  if (used.ok()) used = make_parts(method, options);
  if (!used.ok()) return bad_file(fmt::format("{}.profile: {}: {}", slug, path, used.error().what));
  method.set_calibrated_for(profile.value().model);
  return {};
}

// The methods that a method asks. A profile names them, so they are what a stranger wrote: methods that plan by
// themselves, and read no further file.
Status make_parts(Method& method, const MakeOptions& options) {
  std::vector<std::unique_ptr<Method>> made;
  for (const std::string& spec : method.parts()) {
    auto part = make_method(spec, {.methods = options.methods, .profiles = false});
    if (!part.ok()) return part.error();
    Method& m = *part.value();
    bool profile = false;
    for (const auto& p : describe_params(m)) profile = profile || (p.name == "profile" && !p.value.empty());
    if (m.inner() || m.candidates() || profile || m.card().slug == method.card().slug)
      return unsupported(fmt::format("{} asks methods that plan by themselves: without wrappers, profiles or choices of their own; got '{}'",
                                     method.card().slug, spec));
    made.push_back(std::move(part.value()));
  }
  if (!made.empty()) method.take_parts(std::move(made));
  return {};
}

// One part of a spec, its parameters set and checked.
Result<std::unique_ptr<Method>> make_part(const MethodEntry& entry, const SpecPart& part, const MakeOptions& options) {
  std::unique_ptr<Method> method = entry.make();
  for (const auto& [key, value] : part.values)  // presets first: single values override them
    if (key == "preset") LACUNA_CHECK(method->preset(value));
  for (const auto& [key, value] : part.values) {
    if (key == "preset") continue;
    Setter setter(part.slug, key, value);
    method->params(setter);
    if (!setter.found) {
      setter.names.emplace_back("preset");
      const std::string near = nearest(key, setter.names);
      return unknown_name(fmt::format("{} has no parameter '{}'{}; it takes {}", part.slug, key,
                                      near.empty() ? "" : fmt::format(": did you mean '{}'?", near),
                                      list_of(setter.names)));
    }
    if (!setter.error.empty()) return bad_argument(setter.error);
  }
  LACUNA_CHECK(method->check());
  if (options.profiles) LACUNA_CHECK(use_profile(*method, options));
  return method;
}

}  // namespace

Result<std::unique_ptr<Method>> make_method(std::string_view spec, const MakeOptions& options) {
  auto parts = parse_spec(spec);
  if (!parts.ok()) return parts.error();
  std::unique_ptr<Method> method;
  for (const SpecPart& part : parts.value()) {
    auto entry = find_entry(part, method != nullptr, options);
    if (!entry.ok()) return entry.error();
    const bool wraps = entry.value()->wraps;
    if (wraps && !method && !(options.lone_wrapper && parts.value().size() == 1))
      return unsupported(fmt::format("{} is a wrapper: it needs a method before it; write METHOD+{}", part.slug, part.slug));
    if (!wraps && method)
      return unsupported(fmt::format("{} cannot wrap {}: it is a method of its own, not a wrapper; a comma separates methods",
                                     part.slug, method->card().slug));
    auto made = make_part(*entry.value(), part, options);
    if (!made.ok()) return made.error();
    if (method) {
      auto& wrapper = static_cast<Wrapper&>(*made.value());
      if (const Status fits = wrapper.accepts(*method); !fits.ok())
        return unsupported(fmt::format("{} cannot wrap {}: {}", part.slug, method->card().slug, fits.error().what));
      wrapper.wrap(std::move(method));
    }
    method = std::move(made.value());
  }
  return method;
}

Result<std::string> spec_of_profile(const std::string& path) {
  const auto profile = read_profile(path);
  if (!profile.ok()) return bad_file(fmt::format("profile: {}", profile.error().what));
  return fmt::format("{}:profile={}", profile.value().slug, path);
}

std::vector<Method*> chain_of(Method& method) {
  std::vector<Method*> chain;
  for (Method* m = &method; m; m = m->inner()) chain.insert(chain.begin(), m);
  return chain;
}

std::vector<ParamInfo> describe_params(Method& method) {
  Describer d;
  method.params(d);
  return d.out;
}

std::string canonical_spec(Method& method) {
  std::string out;
  for (Method* m : chain_of(method)) {
    out += fmt::format("{}{}", out.empty() ? "" : "+", m->card().slug);
    for (const auto& p : describe_params(*m))
      if (!p.value.empty()) out += fmt::format(":{}={}", p.name, p.value);
  }
  return out;
}

}  // namespace lacuna
