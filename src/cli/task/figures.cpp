// SPDX-License-Identifier: Apache-2.0
#include "cli/task/figures.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "cli/compare/figures.h"
#include "cli/lengths.h"
#include "cli/task/score.h"

namespace lacuna::cli::task {

using Json = nlohmann::ordered_json;

namespace {

struct Mean {
  double sum = 0;
  int n = 0;
  void add(double x) { sum += x, ++n; }
  Json json() const { return n > 0 ? Json(sum / n) : Json(); }
};

// Share of the positions at which both find the same token likeliest.
double same_tops(const Json& a, const Json& b) {
  const std::size_t n = std::min(a.size(), b.size());
  std::size_t same = 0;
  for (std::size_t i = 0; i < n; ++i) same += a[i] == b[i];
  return n > 0 ? static_cast<double>(same) / static_cast<double>(n) : 1;
}

std::string percent(std::optional<double> x) { return x ? fmt::format("{:.0f} %", 100 * *x) : "-"; }

}  // namespace

bool has_task(const Json& document) { return document.contains("task") && document["task"].is_object(); }

bool of_perplexity(const Json& document) {
  return document["task"].contains("perplexity") && document["task"]["perplexity"] == true;
}

Json samples_json(const std::vector<Sample>& samples) {
  Json list = Json::array();
  for (const Sample& s : samples) {
    Json j{{"depth", s.depth ? Json(*s.depth) : Json()}, {"score", name_of(s.scoring)}, {"turns", Json::array()}};
    for (const Turn& turn : s.turns) j["turns"].push_back({{"question", turn.question}, {"answers", turn.answers}});
    list.push_back(std::move(j));
  }
  return list;
}

void add_scores(const std::vector<Sample>& samples, const std::vector<Json>& lines, const std::vector<Json>& dense,
                Json& run) {
  Mean score, agreement, same;
  double nll = 0, positions = 0;
  run["samples"] = Json::array();
  for (std::size_t i = 0; i < std::min(samples.size(), lines.size()); ++i) {
    const Json* other = i < dense.size() ? &dense[i] : nullptr;
    Json sample;
    Mean turns, likes;
    if (samples[i].turns.empty()) {
      const double n = static_cast<double>(lines[i]["tops"].size());
      nll += lines[i]["nll"].get<double>();
      positions += n;
      turns.add(std::exp(lines[i]["nll"].get<double>() / std::max(n, 1.0)));
      if (other) likes.add(same_tops(lines[i]["tops"], (*other)["tops"]));
    } else {
      sample["answers"] = lines[i]["answers"];
      for (std::size_t t = 0; t < samples[i].turns.size(); ++t) {
        const std::string text = lines[i]["answers"][t].get<std::string>();
        turns.add(score_answer(samples[i].scoring, samples[i].turns[t].answers, text));
        if (!other) continue;
        const double like = likeness(text, (*other)["answers"][t].get<std::string>());
        likes.add(like);
        same.add(like == 1 ? 1 : 0);
      }
    }
    sample["score"] = turns.json();
    sample["agreement"] = likes.json();
    score.add(turns.json().get<double>());
    if (other) agreement.add(likes.json().get<double>());
    run["samples"].push_back(std::move(sample));
  }
  run["score"] = positions > 0 ? Json(std::exp(nll / positions)) : score.json();
  run["agreement"] = agreement.json();
  run["same_answers"] = same.json();
}

std::string score_words(const Json& document, const Json& run) {
  const auto score = figure(run, "/score");
  return of_perplexity(document) ? plain(score, "{:.2f}") : percent(score);
}

std::string agreement_words(const Json& run) { return percent(figure(run, "/agreement")); }

std::string task_sentence(const Json& document, const Json& length) {
  const Json* dense = find_run(length, "dense");
  const std::string at = length_words(tokens_of(length));
  if (!dense || !figure(*dense, "/score")) return "Dense did not run, so there is nothing to agree with.";
  std::string s = of_perplexity(document)
                      ? fmt::format("At {} tokens dense has a perplexity of {}", at, score_words(document, *dense))
                      : fmt::format("At {} tokens dense scores {}", at, score_words(document, *dense));
  constexpr double kFails = 0.5;
  if (!of_perplexity(document) && *figure(*dense, "/score") < kFails)
    s += ": the model fails by itself, so that agreement tells more than the score";
  const Json* best = nullptr;
  for (const Json& run : length["runs"]) {
    if (run["method"] == "dense" || run["method"] == "stock" || !worked(run) || !figure(run, "/agreement")) continue;
    if (!best || *figure(run, "/agreement") > *figure(*best, "/agreement")) best = &run;
  }
  if (best)
    s += fmt::format("; most like it answers {}: {}, agreement {}", (*best)["method"].get<std::string>(),
                     score_words(document, *best), agreement_words(*best));
  return s + ".";
}

}  // namespace lacuna::cli::task
