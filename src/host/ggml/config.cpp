// SPDX-License-Identifier: Apache-2.0
#include "host/ggml/config.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <vector>

namespace lacuna::ggml {
namespace {

const std::vector<std::string> kOwn = {"report", "log", "quiet", "device", "side"};

Error wrong(const std::string& key, const std::string& got, const char* need) {
  return bad_argument(key + ": got '" + got + "', need " + need);
}

Status set(Config& c, const std::string& key, const std::string& value) {
  if (key == "report") {
    if (value.empty()) return wrong(key, value, "a file name");
    c.report = value;
  } else if (key == "log") {
    constexpr int kMost = 86400;
    const char* end = value.data() + value.size() - (value.ends_with('s') ? 1 : 0);
    const auto [at, bad] = std::from_chars(value.data(), end, c.log_seconds);
    if (bad != std::errc{} || at != end || c.log_seconds < 0 || c.log_seconds > kMost)
      return wrong(key, value, "seconds between two lines, as 60s: 1 to 86400, 0 for none");
  } else if (key == "quiet") {
    if (value != "0" && value != "1") return wrong(key, value, "0 or 1");
    c.quiet = value == "1";
  } else if (key == "side") {
    if (value != "method" && value != "all") return wrong(key, value, "method, or all (for tests)");
    c.side_all = value == "all";
  } else {
    if (value != "auto" && value != "gpu" && value != "accel") return wrong(key, value, "auto, gpu or accel");
    c.device = value;
  }
  return {};
}

}  // namespace

Result<Config> parse_config(const std::string& text) {
  Config c;
  std::istringstream words(text);
  std::string word, rest;
  while (words >> word) {
    const std::string key = word.substr(0, word.find('='));
    if (key == "threads") return bad_argument("threads: the host's own are used; llama.cpp's -t says how many");
    if (key.size() < word.size() && std::find(kOwn.begin(), kOwn.end(), key) != kOwn.end())
      LACUNA_CHECK(set(c, key, word.substr(key.size() + 1)));
    else
      rest += word + ' ';
  }
  auto options = parse_options(rest, kOwn);
  if (!options.ok()) return options.error();
  c.options = std::move(options.value());
  Options trial = c.options;
  trial.threads = 1;
  if (auto session = Session::open(trial); !session.ok()) return session.error();
  return c;
}

}  // namespace lacuna::ggml
