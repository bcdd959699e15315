// SPDX-License-Identifier: Apache-2.0
#include "method/profile.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "base/words.h"

namespace lacuna {

using Json = nlohmann::json;

namespace {

constexpr int kFormatVersion = 1, kMostLevels = 16;
constexpr const char* kFormat = "lacuna-profile";

// A value as an error shows it: short whatever it is.
std::string shown(const Json& v) {
  if (v.is_array()) return fmt::format("a list of {}", v.size());
  if (v.is_object()) return fmt::format("an object of {}", v.size());
  std::string text = v.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

Error wrong(std::string_view where, const Json& got, std::string_view need) {
  return bad_file(fmt::format("{}: got {}, need {}", where, shown(got), need));
}

// The keys of an object are these and no others.
Status check_keys(const Json& object, std::string_view where, const std::vector<std::string>& known) {
  if (!object.is_object()) return wrong(where, object, "an object");
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      const std::string near = nearest(key, known);
      return bad_file(fmt::format("{}: unknown key '{}'{}; there are {}", where, key.substr(0, 40),
                                  near.empty() ? "" : fmt::format(": did you mean '{}'?", near), fmt::join(known, ", ")));
    }
  return {};
}

}  // namespace

std::vector<std::string> differences(const ModelFacts& need, const ModelFacts& got) {
  std::vector<std::string> out;
  if (!need.name.empty() && !got.name.empty() && need.name != got.name)
    out.push_back(fmt::format("name: got '{}', need '{}'", got.name, need.name));
  const auto figure = [&](const char* what, int n, int g) {
    if (n > 0 && g > 0 && n != g) out.push_back(fmt::format("{}: got {}, need {}", what, g, n));
  };
  figure("n_layers", need.n_layers, got.n_layers);
  figure("hq", need.hq, got.hq);
  figure("hkv", need.hkv, got.hkv);
  figure("dk", need.dk, got.dk);
  figure("dv", need.dv, got.dv);
  const Rope &n = need.rope, &g = got.rope;
  if (n.layout != RopeLayout::unknown && g.layout != RopeLayout::unknown && n.layout != g.layout)
    out.push_back(fmt::format("rope.layout: got {}, need {}", name_of(g.layout), name_of(n.layout)));
  if (n.base > 0 && g.base > 0 && std::abs(n.base - g.base) > 1e-4 * n.base)
    out.push_back(fmt::format("rope.base: got {:g}, need {:g}", g.base, n.base));
  return out;
}

Status check_model(const ModelFacts& need, const ModelFacts& got) {
  const auto found = differences(need, got);
  if (found.empty()) return {};
  return bad_file(fmt::format("the profile is of another model ({}): make one for this model with 'lacuna calibrate' or 'lacuna tune'",
                              fmt::join(found, "; ")));
}

Result<const Json*> member(const Json& object, std::string_view where, std::string_view key) {
  if (!object.is_object()) return wrong(where, object, "an object");
  const auto it = object.find(std::string(key));
  if (it == object.end()) return bad_file(fmt::format("{}.{}: is missing; make the profile again", where, key));
  return &*it;
}

Status check_list(const Json& value, std::string_view where, std::size_t n) {
  if (!value.is_array() || value.size() != n) return wrong(where, value, fmt::format("a list of {}", n));
  return {};
}

Result<std::int64_t> as_int(const Json& value, std::string_view where, std::int64_t lo, std::int64_t hi) {
  const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX));
  const std::int64_t x = fits ? value.get<std::int64_t>() : 0;
  if (!fits || x < lo || x > hi) return wrong(where, value, fmt::format("a whole number, {}..{}", lo, hi));
  return x;
}

Result<double> as_number(const Json& value, std::string_view where, double lo, double hi) {
  const double x = value.is_number() ? value.get<double>() : NAN;
  if (!(x >= lo && x <= hi)) return wrong(where, value, fmt::format("a number, {:g}..{:g}", lo, hi));
  return x;
}

Result<std::string> as_text(const Json& value, std::string_view where, std::size_t longest) {
  if (!value.is_string() || value.get_ref<const std::string&>().size() > longest)
    return wrong(where, value, fmt::format("a text of at most {} bytes", longest));
  return value.get<std::string>();
}

Result<std::vector<std::int64_t>> as_ints(const Json& value, std::string_view where, std::size_t n, std::int64_t lo,
                                          std::int64_t hi) {
  LACUNA_CHECK(check_list(value, where, n));
  std::vector<std::int64_t> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    auto x = as_int(value[i], fmt::format("{}[{}]", where, i), lo, hi);
    if (!x.ok()) return x.error();
    out[i] = x.value();
  }
  return out;
}

Result<std::vector<double>> as_numbers(const Json& value, std::string_view where, std::size_t n, double lo, double hi) {
  LACUNA_CHECK(check_list(value, where, n));
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    auto x = as_number(value[i], fmt::format("{}[{}]", where, i), lo, hi);
    if (!x.ok()) return x.error();
    out[i] = x.value();
  }
  return out;
}

Result<std::vector<std::int32_t>> as_permutation(const Json& value, std::string_view where, std::size_t n) {
  auto ints = as_ints(value, where, n, 0, static_cast<std::int64_t>(n) - 1);
  if (!ints.ok()) return ints.error();
  std::vector<bool> seen(n);
  std::vector<std::int32_t> out;
  for (const std::int64_t x : ints.value()) {
    if (seen[static_cast<std::size_t>(x)])
      return bad_file(fmt::format("{}: {} stands in it twice, need each of 0..{} once", where, x, n - 1));
    seen[static_cast<std::size_t>(x)] = true;
    out.push_back(static_cast<std::int32_t>(x));
  }
  return out;
}

Json as_json(const ModelFacts& m) {
  return {{"name", m.name}, {"n_layers", m.n_layers}, {"hq", m.hq}, {"hkv", m.hkv}, {"dk", m.dk}, {"dv", m.dv},
          {"rope", {{"layout", name_of(m.rope.layout)}, {"base", m.rope.base}}}};
}

Result<ModelFacts> model_facts(const Json& value, std::string_view where, bool partial) {
  LACUNA_CHECK(check_keys(value, where, {"name", "n_layers", "hq", "hkv", "dk", "dv", "rope"}));
  ModelFacts m;
  auto name = member(value, where, "name");
  if (!name.ok()) return name.error();
  auto text = as_text(*name.value(), fmt::format("{}.name", where), 256);
  if (!text.ok()) return text.error();
  m.name = text.value();
  const auto figure = [&](const char* key, int& to, std::int64_t hi) -> Status {
    auto at = member(value, where, key);
    if (!at.ok()) return at.error();
    auto x = as_int(*at.value(), fmt::format("{}.{}", where, key), partial ? 0 : 1, hi);
    if (!x.ok()) return x.error();
    to = static_cast<int>(x.value());
    return {};
  };
  LACUNA_CHECK(figure("n_layers", m.n_layers, 4096));
  LACUNA_CHECK(figure("hq", m.hq, 4096));
  LACUNA_CHECK(figure("hkv", m.hkv, 4096));
  LACUNA_CHECK(figure("dk", m.dk, 1024));
  LACUNA_CHECK(figure("dv", m.dv, 1024));
  if (m.hkv > 0 && m.hq % m.hkv != 0)
    return bad_file(fmt::format("{}: hq {} and hkv {}: the first must be a multiple of the second", where, m.hq, m.hkv));
  auto rope = member(value, where, "rope");
  if (!rope.ok()) return rope.error();
  const std::string at = fmt::format("{}.rope", where);
  LACUNA_CHECK(check_keys(*rope.value(), at, {"layout", "base"}));
  auto layout = member(*rope.value(), at, "layout");
  if (!layout.ok()) return layout.error();
  bool known = partial && *layout.value() == name_of(RopeLayout::unknown);
  for (const RopeLayout l : {RopeLayout::none, RopeLayout::interleaved, RopeLayout::half_split, RopeLayout::mixed})
    if (layout.value()->is_string() && *layout.value() == name_of(l)) m.rope.layout = l, known = true;
  if (!known) return wrong(at + ".layout", *layout.value(), "none, interleaved, half-split or mixed");
  auto base = member(*rope.value(), at, "base");
  if (!base.ok()) return base.error();
  auto number = as_number(*base.value(), at + ".base", 0, 1e12);
  if (!number.ok()) return number.error();
  m.rope.base = number.value();
  return m;
}

Result<Json> parse_json(std::string_view text) {
  int level = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      else if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++level > kMostLevels) return bad_file(fmt::format("more than {} levels of lists and objects", kMostLevels));
    } else if (c == ']' || c == '}') {
      --level;
    }
  }
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return bad_file("is no JSON, or cut off");
  return json;
}

Result<Profile> parse_profile(std::string_view text) {
  if (text.size() > kMostProfileBytes)
    return bad_file(fmt::format("{} bytes, need at most {}", text.size(), kMostProfileBytes));
  auto parsed = parse_json(text);
  if (!parsed.ok()) return parsed.error();
  const Json& j = parsed.value();
  // Format and version first: a file of another kind may differ in everything else.
  auto format = member(j, "profile", "format");
  if (!format.ok() || *format.value() != kFormat)
    return bad_file(fmt::format("format: need \"{}\": this is no profile; 'lacuna calibrate' and 'lacuna tune' make them", kFormat));
  auto version = member(j, "profile", "version");
  if (!version.ok()) return version.error();
  if (!as_int(*version.value(), "version", kFormatVersion, kFormatVersion).ok())
    return bad_file(fmt::format("version: got {}, need {}: make it again with this Lacuna, or take the one that wrote it",
                                shown(*version.value()), kFormatVersion));
  LACUNA_CHECK(check_keys(j, "profile", {"format", "version", "slug", "model", "params", "texts", "data", "tensors"}));
  if (j.contains("tensors") && !j["tensors"].is_null())
    return wrong("tensors", j["tensors"], "nothing: this Lacuna reads no tensor files; take the one that wrote it");
  Profile p;
  auto slug = member(j, "profile", "slug");
  if (!slug.ok()) return slug.error();
  auto slug_text = as_text(*slug.value(), "slug", 64);
  if (!slug_text.ok()) return slug_text.error();
  p.slug = slug_text.value();
  auto model = member(j, "profile", "model");
  if (!model.ok()) return model.error();
  auto facts = model_facts(*model.value(), "model");
  if (!facts.ok()) return facts.error();
  p.model = facts.value();
  for (const auto& [key, to] : {std::pair{"params", &p.params}, std::pair{"texts", &p.texts}, std::pair{"data", &p.data}}) {
    auto at = member(j, "profile", key);
    if (!at.ok()) return at.error();
    if (!at.value()->is_object()) return wrong(key, *at.value(), "an object");
    *to = *at.value();
  }
  return p;
}

Result<std::string> read_small_file(const std::string& path, std::size_t most) {
  std::error_code bad;
  if (!std::filesystem::exists(path, bad)) return bad_file(fmt::format("{}: is not there", path));
  if (!std::filesystem::is_regular_file(path, bad)) return bad_file(fmt::format("{}: is no file", path));
  std::ifstream in(path, std::ios::binary);
  if (!in) return bad_file(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
  // What the file system says of a size need not hold while we read: at most one byte more is taken.
  std::string text(std::min<std::uintmax_t>(std::filesystem::file_size(path, bad), most) + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > most) return bad_file(fmt::format("{}: is larger than {} bytes, the most that is read", path, most));
  return text;
}

Result<Profile> read_profile(const std::string& path) {
  auto text = read_small_file(path, kMostProfileBytes);
  if (!text.ok()) return text.error();
  auto profile = parse_profile(text.value());
  if (!profile.ok()) return bad_file(fmt::format("{}: {}", path, profile.error().what));
  return profile;
}

// One line per field, so that two profiles can be compared by eye.
std::string profile_text(const Profile& p) {
  const std::pair<const char*, Json> fields[] = {{"format", kFormat}, {"version", kFormatVersion}, {"slug", p.slug},
                                                 {"model", as_json(p.model)}, {"params", p.params}, {"texts", p.texts},
                                                 {"data", p.data}};
  std::string out = "{";
  for (const auto& [key, value] : fields)
    out += fmt::format("{}\n \"{}\": {}", out.size() > 1 ? "," : "", key, value.dump(-1, ' ', false, Json::error_handler_t::replace));
  return out + "\n}\n";
}

Status write_whole(const std::string& path, std::string_view text) {
  const std::string beside = fmt::format("{}.{}.new", path, getpid());
  std::FILE* f = std::fopen(beside.c_str(), "w");
  bool good = f && std::fwrite(text.data(), 1, text.size(), f) == text.size() && std::fflush(f) == 0 && fsync(fileno(f)) == 0;
  if (f) good = std::fclose(f) == 0 && good;
  if (good && std::rename(beside.c_str(), path.c_str()) == 0) return {};
  const std::string why = std::strerror(errno);
  if (f) std::remove(beside.c_str());
  return bad_file(fmt::format("{}: cannot be written ({}); name a file in a folder you may write to", path, why));
}

Status write_profile(const Profile& profile, const std::string& path) {
  const std::string text = profile_text(profile);
  if (text.size() > kMostProfileBytes)  // nobody could read it
    return bad_file(fmt::format("{}: the profile has {} bytes, the most is {}", path, text.size(), kMostProfileBytes));
  return write_whole(path, text);
}

}  // namespace lacuna
