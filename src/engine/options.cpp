// SPDX-License-Identifier: Apache-2.0
// The one text that configures a session wherever there is no command line: a plug-in's environment
// variable, the C interface.
#include <charconv>

#include <fmt/format.h>

#include "base/words.h"
#include "engine/registry.h"
#include "lacuna/lacuna.h"

namespace lacuna {
namespace {

template <class T>
bool number(std::string_view text, T& value) {
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), value);
  return bad == std::errc{} && end == text.data() + text.size();
}

// A share above 0 and up to 1, in percent or not.
bool share(std::string_view text, double& value) {
  const bool percent = text.ends_with('%');
  if (!number(text.substr(0, text.size() - percent), value)) return false;
  value /= percent ? 100 : 1;
  return value > 0 && value <= 1;
}

Status set(Options& o, std::string_view key, std::string_view value, const std::vector<std::string>& others) {
  if (key == "precision") {
    if (value == "fast") o.precision = Precision::fast;
    else if (value == "high") o.precision = Precision::high;
    else return bad_argument(fmt::format("precision: got '{}', need fast or high", value));
  } else if (key == "audit") {
    if (value == "off") o.audit = Audit::off;
    else if (value == "sample") o.audit = Audit::sample;
    else if (value == "full") o.audit = Audit::full;
    else return bad_argument(fmt::format("audit: got '{}', need off, sample or full", value));
  } else if (key == "max_loss" || key == "max_error") {
    double& limit = key == "max_loss" ? o.max_loss : o.max_error;
    if (!share(value, limit) || !(limit < 1))
      return bad_argument(fmt::format("{}: got '{}', need a share above 0 and below 1, as 0.01 or 1%", key, value));
  } else if (key == "certify") {
    if (!share(value, o.certify))
      return bad_argument(fmt::format("certify: got '{}', need a share above 0 and up to 1, as 0.05 or 5%; 100% only tells the bounds", value));
  } else if (key == "seed") {
    if (!number(value, o.seed)) return bad_argument(fmt::format("seed: got '{}', need a whole number, 0 or more", value));
  } else if (key == "threads") {
    if (!number(value, o.threads)) return bad_argument(fmt::format("threads: got '{}', need a whole number, 0 = one per core", value));
  } else if (key == "windowed") {
    if (value != "dense" && value != "sparse") return bad_argument(fmt::format("windowed: got '{}', need dense or sparse", value));
    o.windowed = value == "sparse";
  } else if (key == "patterns") {
    if (value != "0" && value != "1") return bad_argument(fmt::format("patterns: got '{}', need 0 or 1", value));
    o.patterns = value == "1";
  } else if (key == "calibrate") {
    if (value != "0" && value != "1") return bad_argument(fmt::format("calibrate: got '{}', need 0 or 1", value));
    o.calibrate = value == "1";
  } else if (key == "kernel") {
    o.kernel = value;
  } else if (key == "machine") {
    o.machine = value;
  } else {
    std::vector<std::string> keys = {"precision", "audit", "max_loss", "max_error", "certify", "seed", "threads", "kernel", "machine", "windowed", "patterns", "calibrate", "profile"};
    keys.insert(keys.end(), others.begin(), others.end());
    const std::string near = nearest(key, keys);
    return unknown_name(fmt::format("unknown option '{}'{}; there are {}", key,
                                    near.empty() ? "" : fmt::format(": did you mean '{}'?", near), fmt::join(keys, ", ")));
  }
  return {};
}

}  // namespace

Result<Options> parse_options(std::string_view text, const std::vector<std::string>& others) {
  constexpr std::size_t kLongest = 8192;
  constexpr std::string_view kSpace = " \t\r\n";
  if (text.size() > kLongest)
    return bad_argument(fmt::format("options: {} characters, at most {} are taken", text.size(), kLongest));
  Options o;
  bool named = false;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos; at = text.find_first_not_of(kSpace, at)) {
    const std::string_view word = text.substr(at, std::min(text.find_first_of(kSpace, at), text.size()) - at);
    at += word.size();
    const std::size_t equals = word.find('=');
    if (word.starts_with("profile=")) {
      if (named) return bad_argument(fmt::format("options: '{}' beside method '{}': a profile names its own method", word, o.method));
      auto spec = spec_of_profile(std::string(word.substr(equals + 1)));
      if (!spec.ok()) return spec.error();
      o.method = std::move(spec.value());
      named = true;
    } else if (equals != std::string_view::npos && equals < word.find(':')) {  // a spec's '=' comes after a ':'
      LACUNA_CHECK(set(o, word.substr(0, equals), word.substr(equals + 1), others));
    } else if (named) {
      return bad_argument(fmt::format("options: '{}' after method '{}': one method, then key=value words", word, o.method));
    } else {
      o.method = word;
      named = true;
    }
  }
  return o;
}

}  // namespace lacuna
