// SPDX-License-Identifier: Apache-2.0
#include "cli/case/case.h"

#include <charconv>
#include <cmath>
#include <filesystem>
#include <tuple>

#include <fmt/format.h>

#include "base/machine.h"
#include "base/words.h"
#include "cli/common.h"
#include "engine/pick.h"

namespace lacuna::cli {
namespace {

const std::vector<std::string> kOps = {"attend", "attend_grad", "strided_scores", "int4_scores", "int8_scores", "attend_maxima", "choose"};
const std::vector<std::string> kCommonKeys = {"b",  "hq",      "hkv",  "nq",        "nkv",    "d",
                                              "kv", "threads", "seed", "precision", "kernel", "machine"};
const std::vector<std::string> kAttendKeys = {"layout", "keep", "block", "window", "sink", "dv", "v", "softcap"};
const std::vector<std::string> kTypes = {"f32", "f16", "bf16", "q8_0", "q4_0"};  // as Dtype numbers them

Status whole(std::string_view key, std::string_view text, std::int64_t lo, std::int64_t hi, std::int64_t& value) {
  std::int64_t x = 0;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (bad != std::errc{} || end != text.data() + text.size() || x < lo || x > hi)
    return bad_argument(fmt::format("{}={}: need a whole number, {} to {}", key, text, lo, hi));
  value = x;
  return {};
}

Status real(std::string_view key, std::string_view text, double above, double hi, double& value) {
  double x = 0;
  const auto [end, bad] = std::from_chars(text.data(), text.data() + text.size(), x);
  if (bad != std::errc{} || end != text.data() + text.size() || !(x > above || (above == 0 && key == "softcap" && x == 0)) || x > hi)
    return bad_argument(fmt::format("{}={}: need a number{} {}, at most {}", key, text,
                                    key == "softcap" ? ", at least" : " above", above, hi));
  value = x;
  return {};
}

Status one_of(std::string_view key, std::string_view text, const std::vector<std::string>& names, std::size_t& which) {
  for (which = 0; which < names.size(); ++which)
    if (names[which] == text) return {};
  const std::string near = nearest(text, names);
  return unknown_name(fmt::format("{}={}: need {}{}", key, text, fmt::join(names, ", "),
                                  near.empty() ? "" : fmt::format("; did you mean '{}'?", near)));
}

std::vector<std::string> kernel_names(std::string_view op) {
  std::vector<std::string> names;
  if (op == "attend" || op == "choose")
    for (const auto* k : kernel::attend_list) names.emplace_back(k->name);
  else if (op == "attend_grad")
    for (const auto* k : kernel::attend_grad_list) names.emplace_back(k->name);
  else if (op == "int4_scores")
    for (const auto* k : kernel::int4_scores_list) names.emplace_back(k->name);
  else if (op == "attend_maxima")
    for (const auto* k : kernel::attend_maxima_list) names.emplace_back(k->name);
  else if (op == "int8_scores")
    for (const auto* k : kernel::int8_scores_list) names.emplace_back(k->name);
  else
    for (const auto* k : kernel::strided_scores_list) names.emplace_back(k->name);
  return names;
}

Status set(Case& c, std::string_view key, std::string_view text) {
  constexpr std::int64_t kMany = std::int64_t{1} << 22;
  std::size_t which = 0;
  std::int64_t n = 0;
  const bool attend = c.attends(), strided = c.op == "strided_scores", choose = c.op == "choose", maxima = c.op == "attend_maxima";
  if (key == "b") return whole(key, text, 1, 64, c.b);
  if (key == "hq") return whole(key, text, 1, 512, c.hq);
  if (key == "hkv") return whole(key, text, 1, 512, c.hkv);
  if (key == "nq") return whole(key, text, 1, kMany, c.nq);
  if (key == "nkv") return whole(key, text, 1, kMany, c.nkv);
  if (key == "d") return whole(key, text, 1, 1024, c.d);
  if (key == "kv") {
    LACUNA_CHECK(one_of(key, text, kTypes, which));
    c.kv = static_cast<Dtype>(which);
    return {};
  }
  if (key == "threads") {
    LACUNA_CHECK(whole(key, text, 0, 1024, n));
    c.threads = static_cast<int>(n);
    return {};
  }
  if (key == "seed") {
    LACUNA_CHECK(whole(key, text, 0, INT64_MAX, n));
    c.seed = static_cast<std::uint64_t>(n);
    return {};
  }
  if (key == "precision") {
    LACUNA_CHECK(one_of(key, text, {"fast", "high"}, which));
    c.precision = static_cast<Precision>(which);
    return {};
  }
  if (key == "machine") {
    LACUNA_CHECK(one_of(key, text, {"none", "avx2", "avx512", "avx512bf16", "amx"}, which));
    c.machine = text;
    return {};
  }
  if (key == "kernel") {
    LACUNA_CHECK(one_of(key, text, kernel_names(c.op), which));
    c.kernel = text;
    return {};
  }
  if (choose && key == "method") {
    c.method = text;
    return {};
  }
  if (choose && key == "chunk") return whole(key, text, 2, kMany, c.chunk);
  if (strided && key == "stride") {
    LACUNA_CHECK(one_of(key, text, {"1", "2", "4", "8", "16"}, which));
    c.stride = std::int64_t{1} << which;
    return {};
  }
  if (attend && key == "v") {
    LACUNA_CHECK(one_of(key, text, kTypes, which));
    c.v = static_cast<Dtype>(which);
    return {};
  }
  if (attend && key == "layout") {
    LACUNA_CHECK(one_of(key, text, {"closed", "block", "tokens", "pages"}, which));
    c.layout = static_cast<Layout>(which);
    return {};
  }
  if (attend && key == "keep") return real(key, text, 0, 1, c.keep);
  if (attend && key == "softcap") return real(key, text, 0, 1e6, c.softcap);
  if ((attend || maxima) && key == "block") return whole(key, text, 1, 65536, c.block);
  if (attend && key == "window") return whole(key, text, 0, kMany, c.window);
  if (attend && key == "sink") return whole(key, text, 0, kMany, c.sink);
  if (attend && key == "dv") return whole(key, text, 0, 1024, c.dv);

  std::vector<std::string> keys = attend    ? kAttendKeys
                                  : choose  ? std::vector<std::string>{"method", "chunk"}
                                  : strided ? std::vector<std::string>{"stride"}
                                  : maxima  ? std::vector<std::string>{"block"}
                                            : std::vector<std::string>{};
  keys.insert(keys.end(), kCommonKeys.begin(), kCommonKeys.end());
  const std::string near = nearest(key, keys);
  return unknown_name(fmt::format("{} has no key '{}'{}; it takes {}", c.op, key,
                                  near.empty() ? "" : fmt::format(": did you mean '{}'?", near), fmt::join(keys, " ")));
}

// Rules across keys, and that the problem fits in this machine's memory by a wide margin.
Status check(const Case& c) {
  if (c.hq % c.hkv)
    return bad_argument(fmt::format("hq={} hkv={}: hq must be a multiple of hkv", c.hq, c.hkv));
  if (c.nkv < c.nq)
    return bad_argument(fmt::format("nq={} nkv={}: the rows are the last nq of nkv positions, so nkv must be nq or more",
                                    c.nq, c.nkv));
  for (const auto& [type, dim, name] : {std::tuple{c.kv, c.d, "d"}, {c.v_type(), std::int64_t{c.value_dim()}, "dv"}})
    if (dim % block_size(type))
      return bad_argument(fmt::format("{}={} of {}: need a multiple of {}, its block; or another type", name, dim,
                                      name_of(type), block_size(type)));
  if (c.kv != c.v_type() && !is_quantised(c.kv) && !is_quantised(c.v_type()))
    return bad_argument(fmt::format("kv={} v={}: both must be of one type, or one of them q8_0 or q4_0", name_of(c.kv),
                                    name_of(c.v_type())));
  if (c.op == "attend_grad" && (is_quantised(c.kv) || is_quantised(c.v_type())))
    return bad_argument(fmt::format("attend_grad with kv={} v={}: what was rounded has no gradient; need f32, f16 or bf16",
                                    name_of(c.kv), name_of(c.v_type())));
  if (c.layout != Layout::closed && (c.window || c.sink))
    return bad_argument("window and sink belong to layout=closed; leave them out or change the layout");
  if (c.op == "choose" && c.b > 1) return bad_argument(fmt::format("b={}: choose takes one sequence, b=1", c.b));
  if (c.window && c.keep < 1) return bad_argument("window and keep both set the window; give one of them");
  const double bytes = 8.0 * static_cast<double>(c.d) *
                       static_cast<double>(c.nq * c.hq + c.nkv * c.hkv * 2);
  constexpr double kMost = 24e9;
  if (bytes > kMost)
    return bad_argument(fmt::format("this problem takes about {}; at most {} is tried: use fewer heads, rows or keys",
                                    human_bytes(bytes), human_bytes(kMost)));
  return {};
}

}  // namespace

std::string Case::line() const {
  const Case plain;
  std::string s = op;
  if (attends()) {
    constexpr const char* kLayouts[] = {"closed", "block", "tokens", "pages"};
    s += fmt::format(" layout={}", kLayouts[static_cast<int>(layout)]);
    if (window == 0) s += fmt::format(" keep={:g}", keep);
    if (layout == Layout::block || layout == Layout::pages) s += fmt::format(" block={}", block);
    if (window) s += fmt::format(" window={}", window);
    if (sink) s += fmt::format(" sink={}", sink);
  } else if (op == "choose") {
    s += fmt::format(" method={} chunk={}", method, chunk);
  } else if (op == "attend_maxima") {
    s += fmt::format(" block={}", block);
  } else if (op == "strided_scores") {
    s += fmt::format(" stride={}", stride);
  }
  s += fmt::format(" b={} hq={} hkv={} nq={} nkv={} d={}", b, hq, hkv, nq, nkv, d);
  if (dv && dv != d) s += fmt::format(" dv={}", dv);
  if (softcap > 0) s += fmt::format(" softcap={:g}", softcap);
  s += fmt::format(" kv={}", name_of(kv));
  if (v_type() != kv) s += fmt::format(" v={}", name_of(v_type()));
  if (threads) s += fmt::format(" threads={}", threads);
  if (precision != plain.precision) s += " precision=high";
  if (!kernel.empty()) s += " kernel=" + kernel;
  if (!machine.empty()) s += " machine=" + machine;
  if (seed != plain.seed) s += fmt::format(" seed={}", seed);
  return s;
}

Result<Case> parse_case(std::string_view line, const CaseDefaults& defaults) {
  constexpr std::size_t kLongest = 2048;
  constexpr std::string_view kSpace = " \t\r\n";
  if (line.size() > kLongest)
    return bad_argument(fmt::format("a case of {} characters; at most {} are taken", line.size(), kLongest));
  std::vector<std::string> words;
  for (std::size_t at = line.find_first_not_of(kSpace); at != std::string_view::npos; at = line.find_first_not_of(kSpace, at)) {
    const std::size_t end = std::min(line.find_first_of(kSpace, at), line.size());
    words.emplace_back(line.substr(at, end - at));
    at = end;
  }
  Case c;
  if (words.empty()) return bad_argument(fmt::format("an empty case; it begins with one of {}", fmt::join(kOps, ", ")));
  std::size_t which = 0;
  if (auto op = one_of("op", words[0], kOps, which); !op.ok()) return op.error();
  c.op = words[0];
  // The command line first, so that the case's own words win.
  c.threads = defaults.threads;
  const std::pair<const char*, const std::string*> given[] = {{"precision", &defaults.precision},
                                                              {"machine", &defaults.machine},
                                                              {"kernel", &defaults.kernel},
                                                              {"seed", &defaults.seed}};
  for (const auto& [key, value] : given)
    if (!value->empty()) LACUNA_CHECK(set(c, key, *value));
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::size_t equals = words[i].find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == words[i].size())
      return bad_argument(fmt::format("'{}' is not key=value", words[i]));
    LACUNA_CHECK(set(c, words[i].substr(0, equals), words[i].substr(equals + 1)));
  }
  LACUNA_CHECK(check(c));
  return c;
}

Result<std::vector<Case>> read_cases(const std::vector<std::string>& words, const CaseDefaults& defaults) {
  std::vector<Case> cases;
  for (const std::string& word : words) {
    if (word.find('=') != std::string::npos && word.find(' ') != std::string::npos) {
      auto c = parse_case(word, defaults);
      if (!c.ok()) return bad_argument(fmt::format("case '{}': {}", one_line(word, 100), c.error().what));
      cases.push_back(c.value());
      continue;
    }
    std::string text, why;
    if (!read_text(word, text, why))
      return bad_file(fmt::format("{}; give a file of cases, or a case as one quoted argument", why));
    int number = 0;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = std::string_view(text).substr(at, end - at);
      at = end + 1;
      ++number;
      const std::size_t first = line.find_first_not_of(" \t\r");
      if (first == std::string_view::npos || line[first] == '#') continue;
      auto c = parse_case(line, defaults);
      if (!c.ok()) return bad_argument(fmt::format("{}:{}: {}", word, number, c.error().what));
      cases.push_back(c.value());
    }
  }
  if (cases.empty()) return bad_file("no cases in what was given");
  return cases;
}

}  // namespace lacuna::cli
