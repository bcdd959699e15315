// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/config.h"

#include <charconv>
#include <sstream>

namespace lacuna::ggml {
namespace {

Error wrong(const std::string& key, const std::string& got, const char* need) {
  return bad_argument(key + ": got '" + got + "', need " + need);
}

Status set(Config& c, const std::string& key, const std::string& value) {
  if (key == "audit") {
    if (value == "off") c.options.audit = Audit::off;
    else if (value == "sample") c.options.audit = Audit::sample;
    else if (value == "full") c.options.audit = Audit::full;
    else return wrong(key, value, "off, sample or full");
  } else if (key == "precision") {
    if (value == "fast") c.options.precision = Precision::fast;
    else if (value == "high") c.options.precision = Precision::high;
    else return wrong(key, value, "fast or high");
  } else if (key == "machine") {
    c.options.machine = value;
  } else if (key == "kernel") {
    c.options.kernel = value;
  } else if (key == "report") {
    if (value.empty()) return wrong(key, value, "a file name");
    c.report = value;
  } else if (key == "seed") {
    const char* end = value.data() + value.size();
    const auto [p, bad] = std::from_chars(value.data(), end, c.options.seed);
    if (bad != std::errc() || p != end) return wrong(key, value, "a whole number from 0");
  } else if (key == "quiet") {
    if (value != "0" && value != "1") return wrong(key, value, "0 or 1");
    c.quiet = value == "1";
  } else if (key == "side") {
    if (value != "method" && value != "all") return wrong(key, value, "method, or all (for tests)");
    c.side_all = value == "all";
  } else if (key == "device") {
    if (value != "auto" && value != "gpu" && value != "accel") return wrong(key, value, "auto, gpu or accel");
    c.device = value;
  } else {
    return unknown_name("'" + key + "': need one of audit, precision, machine, kernel, seed, report, quiet, side, device");
  }
  return {};
}

// A word is a setting if its first '=' comes before any ':' (a method's parameters follow a colon).
bool is_setting(const std::string& word) {
  const auto equals = word.find('='), colon = word.find(':');
  return equals != std::string::npos && (colon == std::string::npos || equals < colon);
}

}  // namespace

Result<Config> parse_config(const std::string& text) {
  Config c;
  std::istringstream words(text);
  std::string word;
  bool method = false;
  while (words >> word) {
    if (is_setting(word)) {
      const auto equals = word.find('=');
      if (auto s = set(c, word.substr(0, equals), word.substr(equals + 1)); !s.ok()) return s.error();
    } else if (method) {
      return bad_argument("'" + word + "': the method is named already (" + c.options.method + "); settings are key=value");
    } else {
      c.options.method = word;
      method = true;
    }
  }
  Options trial = c.options;
  trial.threads = 1;
  if (auto session = Session::open(trial); !session.ok()) return session.error();
  return c;
}

}  // namespace lacuna::ggml
