// SPDX-License-Identifier: Apache-2.0
#include "cli/compare_runs.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/clock.h"
#include "cli/child.h"
#include "cli/compare_document.h"
#include "cli/compare_figures.h"
#include "cli/lengths.h"
#include "cli/model.h"
#include "cli/time_left.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

// One run's answer, with `state` and `error`.
Json run_of(const ChildResult& child, const std::string& method) {
  Json run = Json::parse(child.out, nullptr, false);
  if ((child.code == kOk || child.code == kInterrupted) && run.is_object() && run.contains("ttft_s")) {
    run["state"] = child.code == kOk ? kDone : kCut;
    run["error"] = child.code == kOk ? Json() : Json("interrupted");
    return run;
  }
  const bool cut = child.code == kInterrupted;
  const char* state = cut ? kCut : child.code == kBadInput ? kRefused : kDied;
  return {{"method", method}, {"state", state}, {"error", cut ? "interrupted" : child.reason()}};
}

// Of several runs of one method, the one with the median time to first token; the last if all failed.
Json median_run(const std::vector<Json>& rounds) {
  std::vector<Json> good;
  for (const Json& run : rounds)
    if (run["state"] == kDone) good.push_back(run);
  if (good.empty())
    for (const Json& run : rounds)
      if (worked(run)) good.push_back(run);
  if (good.empty()) return rounds.back();
  std::sort(good.begin(), good.end(), [](const Json& a, const Json& b) { return a["ttft_s"] < b["ttft_s"]; });
  Json run = good[(good.size() - 1) / 2];
  run["ttft_rounds_s"] = Json::array();
  for (const Json& one : good) run["ttft_rounds_s"].push_back(one["ttft_s"]);
  return run;
}

class Runs {
 public:
  Runs(const std::vector<CompareText>& texts, int rounds, bool kl, Json& document, const std::function<void()>& changed)
      : texts_(texts), rounds_(rounds), kl_(kl), document_(document), changed_(changed) {
    for (const CompareText& text : texts) {
      for (int round = 0; round < rounds; ++round)
        for (const Json& method : document["methods"]) left_.plan(method.get<std::string>(), text.prompt_tokens);
      if (kl) left_.plan("kl", text.prompt_tokens);
    }
  }

  void all() {
    for (std::size_t i = 0; i < texts_.size() && !interrupted(); ++i) one_length(texts_[i], document_["lengths"][i]);
  }

 private:
  // Round by round, so that a slow spell of the machine falls on all methods alike.
  void one_length(const CompareText& text, Json& length) {
    std::vector<std::vector<Json>> seen(length["runs"].size());
    for (int round = 0; round < rounds_; ++round)
      for (std::size_t i = 0; i < seen.size() && !interrupted(); ++i) {
        const std::string method = document_["methods"][i].get<std::string>();
        const std::string label =
            method + at(text) + (rounds_ > 1 ? fmt::format(" ({} of {})", round + 1, rounds_) : "");
        std::vector<std::string> arguments = {"run", "--method=" + method, "--json=-"};
        if (text.options.patterns) arguments.emplace_back("--patterns");
        seen[i].push_back(run_of(child(arguments, text, label), method));
        Json run = median_run(seen[i]);
        run["kl_mean"] = run["same_top_share"] = nullptr;
        if (method == "stock" && run["state"] == kDone) {  // stock is the measure: no distance from itself
          run["kl_mean"] = 0.0;
          run["same_top_share"] = 1.0;
        }
        length["runs"][i] = std::move(run);
        changed_();
        const Json& last = seen[i].back();
        const std::string words = state_words(last);
        say(label, words.empty() ? fmt::format("first token after {:.2f} s", *figure(last, "/ttft_s")) : words);
      }
    if (!kl_ || interrupted()) return;
    add_kl(text, length);
    changed_();
  }

  // Adds kl_mean and same_top_share to the runs of a length, and its floor.
  void add_kl(const CompareText& text, Json& length) {
    std::string methods;
    for (const Json& run : length["runs"])
      if (run["method"] != "stock" && run["state"] == kDone)
        methods += (methods.empty() ? "" : ",") + run["method"].get<std::string>();
    std::vector<std::string> arguments = {"kl"};
    if (!methods.empty()) arguments.push_back("--methods=" + methods);
    const std::string label = "comparing logits with stock" + at(text);
    const ChildResult result = child(arguments, text, label);
    const Json kl = Json::parse(result.out, nullptr, false);
    if (result.code != kOk || !kl.is_object()) {
      length["kl_error"] = result.code == kInterrupted ? "interrupted" : result.reason();
      return note(fmt::format("no KL{}: {}", at(text), length["kl_error"].get<std::string>()));
    }
    say(label, fmt::format("{} positions", kl["positions"].get<long long>()));
    length["floor"] = {{"kl_mean", kl["floor"]["kl_mean"]},
                       {"same_top_share", kl["floor"]["same_top_share"]},
                       {"positions", kl["positions"]}};
    for (Json& run : length["runs"])
      for (const Json& m : kl["methods"])
        if (m["method"] == run["method"]) {
          run["kl_mean"] = m["kl_mean"];
          run["same_top_share"] = m["same_top_share"];
          if (m["error"].is_string())
            note(fmt::format("no KL for {}: {}", run["method"].get<std::string>(), m["error"].get<std::string>()));
        }
  }

  // Runs a child and shows, on a terminal, for how long it has been at it and what is left.
  ChildResult child(std::vector<std::string> arguments, const CompareText& text, const std::string& label) {
    const auto rest = to_arguments(text.options);
    arguments.insert(arguments.end(), rest.begin(), rest.end());
    const double start = now();
    const std::string left = left_.words();
    const auto line = [&] {
      if (!stderr_is_terminal()) return;
      fmt::print(stderr, "\r\033[K[{}/{}] {}  {:.0f} s{}", left_.jobs_done() + 1, left_.jobs(), one_line(label, 40),
                 now() - start, left.empty() ? "" : "; " + left);
    };
    line();
    ChildResult result = run_child(arguments, line);
    if (stderr_is_terminal()) fmt::print(stderr, "\r\033[K");
    left_.done(now() - start);
    return result;
  }

  void say(const std::string& label, const std::string& what) const {
    const std::string left = interrupted() ? "" : left_.words();
    fmt::print(stderr, "  {}: {}{}\n", label, what,
               left.empty() ? "" : fmt::format("  [{}/{}, {}]", left_.jobs_done(), left_.jobs(), left));
  }

  std::string at(const CompareText& text) const {
    return texts_.size() > 1 ? " at " + length_words(text.text_tokens.value_or(text.prompt_tokens)) : "";
  }

  const std::vector<CompareText>& texts_;
  const int rounds_;
  const bool kl_;
  Json& document_;
  const std::function<void()>& changed_;
  TimeLeft left_;
};

}  // namespace

void make_runs(const std::vector<CompareText>& texts, int rounds, bool kl, Json& document,
               const std::function<void()>& changed) {
  Runs(texts, rounds, kl, document, changed).all();
}

}  // namespace lacuna::cli
