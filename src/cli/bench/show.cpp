// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/show.h"

#include <cstdio>
#include <string>

#include <fmt/format.h>

#include "cli/common.h"

namespace lacuna::cli {
namespace {

std::string ms(double seconds) {
  const double x = seconds * 1e3;
  return x < 10 ? fmt::format("{:.3f}", x) : x < 1000 ? fmt::format("{:.1f}", x) : fmt::format("{:.0f}", x);
}

}  // namespace

void print(const Case& c, const Measured& m) {
  fmt::print("{}\n", c.line());
  fmt::print("  {} {:>9} ms  ({} .. {})  {:.1f} GFLOP/s, density {:.3f}\n", bold(fmt::format("{:<21}", m.kernel)), ms(m.ours.median), ms(m.ours.min),
             ms(m.ours.max), m.gflops, m.density);
  if (!m.peer.empty())
    fmt::print("  {:<21} {:>9} ms  ({} .. {})  ratio {}\n", m.peer, ms(m.theirs.median), ms(m.theirs.min), ms(m.theirs.max),
               bold(fmt::format("{:.2f}", m.theirs.median / m.ours.median)));
  if (!m.forward.empty())
    fmt::print("  {:<21} {:>9} ms  ({} .. {})  ratio {}\n", m.forward + " forward", ms(m.forward_times.median),
               ms(m.forward_times.min), ms(m.forward_times.max), bold(fmt::format("{:.2f}", m.ratio)));
  if (m.dense > 0)
    fmt::print("  dense takes {:.2f} times as long; this takes {} times dense's time x density\n", m.dense / m.ours.median,
               bold(fmt::format("{:.2f}", m.ours.median / (m.dense * m.density))));
  if (m.terms.known) {
    const auto term = [&](const char* name, double t) { return fmt::format("{} {} ms ({:.0f} %)", name, ms(t), 100 * t / m.ours.median); };
    fmt::print("  roofline: {}, {}, {}\n", term("products", m.terms.products), term("weights", m.terms.weights), term("memory", m.terms.memory));
  }
  std::string aside = fmt::format("{} takes {} ms, lowering {} ms", m.prepared, ms(m.pack), ms(m.lower));
  if (!m.peer.empty()) aside += fmt::format("; with packing: ratio {:.2f}", m.theirs.median / (m.ours.median + m.pack));
  fmt::print("  {}\n", dim(aside));
  if (m.difference >= 0) fmt::print("  {}\n", dim(fmt::format("greatest difference of the two results: {:.1e}", m.difference)));
  std::fflush(stdout);
}

nlohmann::ordered_json as_json(const Case& c, const Measured& m) {
  nlohmann::ordered_json j = {{"case", c.line()},
                              {"kernel", m.kernel},
                              {"ms", {{"median", m.ours.median * 1e3}, {"min", m.ours.min * 1e3}, {"max", m.ours.max * 1e3}}},
                              {"gflops", m.gflops},
                              {"density", m.density},
                              {"runs", m.runs},
                              {"pack_ms", m.pack * 1e3},
                              {"lower_ms", m.lower * 1e3}};
  if (!m.forward.empty()) {
    j["forward"] = {{"kernel", m.forward},
                    {"ms", m.forward_times.median * 1e3},
                    {"ms_min", m.forward_times.min * 1e3},
                    {"ms_max", m.forward_times.max * 1e3}};
    j["ratio_to_forward"] = m.ratio;
  }
  if (m.dense > 0) j["dense_ms"] = m.dense * 1e3;
  if (m.terms.known)
    j["roofline_ms"] = {{"products", m.terms.products * 1e3}, {"weights", m.terms.weights * 1e3}, {"memory", m.terms.memory * 1e3}};
  if (m.peer.empty()) return j;
  j["peer"] = {{"name", m.peer},
               {"ms", m.theirs.median * 1e3},
               {"ms_min", m.theirs.min * 1e3},
               {"ms_max", m.theirs.max * 1e3}};
  if (m.difference >= 0) j["peer"]["max_difference"] = m.difference;
  j["ratio"] = m.theirs.median / m.ours.median;
  j["ratio_with_packing"] = m.theirs.median / (m.ours.median + m.pack);
  return j;
}

void print(const Case& c, const Choosing& o) {
  fmt::print("{}\n", c.line());
  const Spread share = spread(o.share), dense = spread(o.dense);
  fmt::print("  {} {:>9} %   ({:.1f} .. {:.1f})  of dense attention, {} ms; density {:.3f}\n", bold(fmt::format("{:<21}", "choosing takes")),
             bold(fmt::format("{:.1f}", 100 * share.median)), 100 * share.min, 100 * share.max, ms(dense.median), o.density);
  fmt::print("  {}\n", dim(fmt::format("estimate {} ms, budget {} ms, side data {} ms; attend {} ms by {}; {} rounds", ms(spread(o.estimate).median),
                                       ms(spread(o.budget).median), ms(spread(o.side).median), ms(spread(o.attend).median), o.kernel,
                                       o.share.size())));
  if (!o.note.empty()) fmt::print("  {}\n", dim(o.note));
  std::fflush(stdout);
}

nlohmann::ordered_json as_json(const Case& c, const Choosing& o) {
  const auto times = [](const std::vector<double>& seconds) {
    const Spread s = spread(seconds);
    return nlohmann::ordered_json{{"median", s.median * 1e3}, {"min", s.min * 1e3}, {"max", s.max * 1e3}};
  };
  const Spread share = spread(o.share);
  return {{"case", c.line()},
          {"kernel", o.kernel},
          {"share_of_dense", {{"median", share.median}, {"min", share.min}, {"max", share.max}}},
          {"estimate_ms", times(o.estimate)},
          {"budget_ms", times(o.budget)},
          {"side_ms", times(o.side)},
          {"attend_ms", times(o.attend)},
          {"dense_ms", times(o.dense)},
          {"density", o.density},
          {"attended_pairs", o.attended_pairs},
          {"rounds", o.share.size()},
          {"note", o.note}};
}

CaseRounds rounds_of(const Case& c, const Measured& m) {
  CaseRounds r{c.line(), m.kernel, "ms", m.ours.rounds};
  for (double& x : r.rounds) x *= 1e3;
  return r;
}

CaseRounds rounds_of(const Case& c, const Choosing& o) { return {c.line(), o.kernel, "share_of_dense", o.share}; }

}  // namespace lacuna::cli
