// SPDX-License-Identifier: Apache-2.0
#include "cli/bench/history.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "cli/bench/ratio.h"
#include "cli/common.h"
#include "cli/page/chart.h"
#include "cli/page/html.h"

namespace lacuna::cli {

namespace {

using Runs = std::vector<const SavedRun*>;

// A case in those runs of one machine that have it; `run` counts the machine's runs.
struct Track {
  std::string line, figure;
  struct At {
    std::size_t run;
    const CaseRounds* rounds;
  };
  std::vector<At> at;
};

std::vector<Track> tracks_of(const Runs& runs) {
  std::vector<Track> tracks;
  for (std::size_t i = 0; i < runs.size(); ++i)
    for (const CaseRounds& c : runs[i]->cases) {
      // A line that a run has twice is taken once.
      const auto same = [&](const Track& t) { return t.line == c.line && t.figure == c.figure; };
      auto track = std::find_if(tracks.begin(), tracks.end(), same);
      if (track == tracks.end()) track = tracks.insert(tracks.end(), {c.line, c.figure, {}});
      if (track->at.empty() || track->at.back().run != i) track->at.push_back({i, &c});
    }
  return tracks;
}

std::vector<std::string> words_in(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), {}};
}

// The words of each line that not all lines have, and those that all have, so that names are short.
struct Names {
  std::string all;
  std::vector<std::string> each;
};

Names short_names(const std::vector<Track>& tracks) {
  Names names;
  std::set<std::string> common;
  for (const std::string& word : words_in(tracks.front().line))
    if (tracks.size() > 1 && std::all_of(tracks.begin(), tracks.end(), [&](const Track& t) {
          const auto words = words_in(t.line);
          return std::find(words.begin(), words.end(), word) != words.end();
        }))
      common.insert(word);
  for (const std::string& word : common) names.all += (names.all.empty() ? "" : " ") + word;
  for (const Track& t : tracks) {
    std::string& name = names.each.emplace_back();
    for (const std::string& word : words_in(t.line))
      if (!common.contains(word)) name += (name.empty() ? "" : " ") + word;
    if (name.empty()) name = t.line;
  }
  return names;
}

std::string figure_words(const CaseRounds& c) {
  return c.figure == "ms" ? fmt::format("{:.4g} ms", median_of(c)) : fmt::format("{:.1f} %", 100 * median_of(c));
}

// "733837e", or the day.
std::string label_of(const SavedRun& run) {
  return run.commit.empty() ? run.date.substr(0, 10) : run.commit.substr(0, run.commit.find('-'));
}

std::string picture(const Track& t, const Runs& runs, const std::string& id, const std::string& name) {
  if (t.at.size() < 2) return "";
  std::vector<Ratio> ratios = {Ratio{}};
  double low = 0.95, high = 1.05;
  for (std::size_t i = 1; i < t.at.size(); ++i) {
    ratios.push_back(ratio_of(t.at[i].rounds->rounds, t.at[0].rounds->rounds));
    low = std::min(low, ratios.back().low);
    high = std::max(high, ratios.back().high);
  }
  const auto ticks = ticks_over(low, high);
  Chart chart("Marks: the case's time in each run over that in the first, with intervals.", "runs, by date", -0.5,
              static_cast<double>(runs.size()) - 0.5, ticks.front(), ticks.back());
  for (const double tick : ticks) chart.tick_y(tick, fmt::format("{:.3g}x", tick));
  constexpr double kApart = 64;
  double last = -kApart;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const double at = static_cast<double>(i);
    const bool room = chart.x(at) - last >= kApart;
    if (room) last = chart.x(at);
    chart.tick_x(at, room ? label_of(*runs[i]) : "");
  }
  chart.svg.ideal({{Chart::kLeft, chart.y(1)}, {Chart::kWidth - Chart::kRight, chart.y(1)}});
  for (std::size_t i = 0; i < t.at.size(); ++i) {
    const double x = chart.x(static_cast<double>(t.at[i].run));
    const SavedRun& run = *runs[t.at[i].run];
    const std::string tip =
        fmt::format("{} {}: {} by {}, {:.3f} of the first ({:.3f} .. {:.3f})", run.date, run.commit,
                    figure_words(*t.at[i].rounds), t.at[i].rounds->kernel, ratios[i].ratio, ratios[i].low, ratios[i].high);
    chart.svg.path({{x, chart.y(ratios[i].low)}, {x, chart.y(ratios[i].high)}}, html_colour(0));
    chart.svg.mark(0, x, chart.y(ratios[i].ratio), html_colour(0), tip);
    if (i > 0 && ratio_of(t.at[i].rounds->rounds, t.at[i - 1].rounds->rounds).verdict == Verdict::slower)
      chart.svg.ring(x, chart.y(ratios[i].ratio), "slower than the run before");
  }
  return figure_html(id, name, chart.svg, "", fmt::format("{} in the first run, {} in the newest.", figure_words(*t.at.front().rounds),
                                                         figure_words(*t.at.back().rounds)));
}

std::string runs_table(const Runs& runs) {
  std::string out = "<div class=\"scroll\"><table>\n<tr><th>date (UTC)</th><th>commit</th><th>version</th><th>cases</th></tr>\n";
  for (const SavedRun* r : runs)
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", html_escape(one_line(r->date, 30)),
                       html_escape(r->commit.empty() ? "-" : one_line(r->commit, 40)), html_escape(one_line(r->lacuna, 30)), r->cases.size());
  return out + "</table></div>\n";
}

std::string cases_table(const std::vector<Track>& tracks, const Names& names) {
  std::string out =
      "<div class=\"scroll\"><table>\n<tr><th>case</th><th>kernel</th><th>runs</th><th>first</th><th>newest</th><th>newest / first</th></tr>\n";
  for (std::size_t i = 0; i < tracks.size(); ++i) {
    const CaseRounds &first = *tracks[i].at.front().rounds, &newest = *tracks[i].at.back().rounds;
    std::string ratio = "-";
    if (tracks[i].at.size() > 1) {
      const Ratio r = ratio_of(newest.rounds, first.rounds);
      ratio = fmt::format("{:.3f} ({:.3f} .. {:.3f}), {}", r.ratio, r.low, r.high, words_of(r.verdict));
    }
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n", html_escape(names.each[i]),
                       html_escape(newest.kernel), tracks[i].at.size(), figure_words(first), figure_words(newest), ratio);
  }
  return out + "</table></div>\n";
}

std::string machine_section(const Runs& runs, std::size_t number) {
  const std::vector<Track> tracks = tracks_of(runs);
  const Names names = short_names(tracks);
  std::string out = fmt::format("<h2>{}</h2>\n", html_escape(one_line(runs.front()->machine, 200))) + runs_table(runs);
  if (!names.all.empty()) out += fmt::format("<p class=\"faint\">All cases: {}</p>\n", html_escape(names.all));
  out += cases_table(tracks, names) + "<div class=\"pictures\">\n";
  for (std::size_t i = 0; i < tracks.size(); ++i) out += picture(tracks[i], runs, fmt::format("m{}c{}", number, i), names.each[i]);
  return out + "</div>\n";
}

}  // namespace

std::string history_html(std::vector<SavedRun> runs) {
  std::stable_sort(runs.begin(), runs.end(), [](const SavedRun& a, const SavedRun& b) { return a.date < b.date; });
  std::string body =
      "<h1>Lacuna: bench from run to run</h1>\n<p>Each case against its first run on the same machine; bars are intervals of 95 %. "
      "A ring: slower than the run before it, beyond the interval and by more than processes differ anyway.</p>\n";
  std::set<std::string> seen;
  for (const SavedRun& run : runs) {
    if (!seen.insert(run.machine).second) continue;
    Runs here;
    for (const SavedRun& other : runs)
      if (other.machine == run.machine) here.push_back(&other);
    body += machine_section(here, seen.size());
  }
  return html_page("Lacuna: bench from run to run", body);
}

}  // namespace lacuna::cli
