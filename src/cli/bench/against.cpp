// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/against.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/common.h"
#include "cli/machine.h"
#include "cli/text.h"

namespace lacuna::cli {

using Json = nlohmann::ordered_json;

namespace {

// "12.3 ms", "17.0 % of dense"
std::string figure_words(const CaseRounds& c) {
  const double x = median_of(c);
  return c.figure == "ms" ? fmt::format("{:.4g} ms", x) : fmt::format("{:.1f} % of dense", 100 * x);
}

}  // namespace

Against::Against(SavedRun then)
    : then_(std::move(then)), same_machine_(then_.machine == machine_words()), used_(then_.cases.size(), false) {}

std::string Against::heading() const {
  std::string out = fmt::format("Against {}: {}, Lacuna {}{}\n", then_.path, then_.date, then_.lacuna,
                                then_.commit.empty() ? "" : ", commit " + then_.commit);
  if (!same_machine_)
    out += paragraph(fmt::format("Warning: another machine. There: {}. Here: {}. Ratios are of machines and programs "
                                 "together; nothing is called faster or slower.",
                                 then_.machine, machine_words()),
                     "");
  return out;
}

std::string Against::add(const CaseRounds& now) {
  last_ = nullptr;
  std::size_t i = 0;
  while (i < used_.size() && (used_[i] || then_.cases[i].line != now.line || then_.cases[i].figure != now.figure)) ++i;
  if (i == used_.size()) {
    only_here_.push_back(now.line);
    return "then: no such case";
  }
  used_[i] = true;
  const CaseRounds& then = then_.cases[i];
  const Ratio r = ratio_of(now.rounds, then.rounds);
  ratios_.push_back(r);
  last_ = {{"median", median_of(then)}, {"kernel", then.kernel}, {"ratio", r.ratio}, {"low", r.low}, {"high", r.high}};
  last_["verdict"] = same_machine_ ? Json(words_of(r.verdict)) : Json();
  return fmt::format("then {}{}: now {} of it ({:.3f} .. {:.3f}){}", figure_words(then),
                     then.kernel == now.kernel ? "" : " by " + then.kernel, bold(fmt::format("{:.3f}", r.ratio)), r.low, r.high,
                     same_machine_ ? ", " + bold(words_of(r.verdict)) : "");
}

int Against::count(Verdict verdict) const {
  return static_cast<int>(std::count_if(ratios_.begin(), ratios_.end(), [&](const Ratio& r) { return r.verdict == verdict; }));
}

double Against::geometric_mean() const {
  double sum = 0;
  for (const Ratio& r : ratios_) sum += std::log(r.ratio);
  return std::exp(sum / static_cast<double>(ratios_.size()));
}

std::vector<std::string> Against::only_there() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < used_.size(); ++i)
    if (!used_[i]) lines.push_back(then_.cases[i].line);
  return lines;
}

std::string Against::summary() const {
  std::string out = heading();
  if (ratios_.empty()) out += "No case is in both.\n";
  else {
    const auto by_ratio = [](const Ratio& a, const Ratio& b) { return a.ratio < b.ratio; };
    const auto [least, most] = std::minmax_element(ratios_.begin(), ratios_.end(), by_ratio);
    out += fmt::format("New / old: geometric mean {} of {} cases ({:.3f} .. {:.3f})", bold(fmt::format("{:.3f}", geometric_mean())),
                       ratios_.size(), least->ratio, most->ratio);
    if (same_machine_)
      out += fmt::format("; {} faster, {} SLOWER, {} within noise", count(Verdict::faster), count(Verdict::slower), count(Verdict::noise));
    out += "\n";
  }
  for (const std::string& line : only_there()) out += fmt::format("only then: {}\n", line);
  for (const std::string& line : only_here_) out += fmt::format("only now: {}\n", line);
  return out;
}

Json Against::as_json() const {
  Json j = {{"file", then_.path}, {"machine", then_.machine}, {"same_machine", same_machine_}, {"lacuna", then_.lacuna}};
  j["commit"] = then_.commit.empty() ? Json() : Json(then_.commit);
  j["date"] = then_.date;
  j["geometric_mean"] = ratios_.empty() ? Json() : Json(geometric_mean());
  for (const auto& [key, verdict] : {std::pair{"faster", Verdict::faster}, {"slower", Verdict::slower}, {"within_noise", Verdict::noise}})
    j[key] = same_machine_ ? Json(count(verdict)) : Json();
  j["only_then"] = only_there();
  j["only_now"] = only_here_;
  return j;
}

int Against::above(double limit) const {
  return static_cast<int>(std::count_if(ratios_.begin(), ratios_.end(),
                                        [&](const Ratio& r) { return r.verdict == Verdict::slower && r.ratio > limit; }));
}

}  // namespace lacuna::cli
