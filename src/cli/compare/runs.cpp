// SPDX-License-Identifier: Apache-2.0
#include "cli/compare/runs.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/compare/document.h"
#include "cli/compare/figures.h"
#include "cli/compare/jobs.h"
#include "cli/lengths.h"
#include "cli/llama/model.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

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
        for (const Json& method : document["methods"]) jobs_.plan(method.get<std::string>(), text.prompt_tokens);
      if (kl) jobs_.plan("kl", text.prompt_tokens);
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
        const ChildResult child = jobs_.run(arguments, text.options, label);
        seen[i].push_back(run_of(child, child.out, method));
        length["runs"][i] = median_run(seen[i]);
        changed_();
        const Json& last = seen[i].back();
        const std::string words = state_words(last);
        jobs_.say(label, words.empty() ? fmt::format("first token after {:.2f} s", *figure(last, "/ttft_s")) : words);
      }
    if (!kl_ || interrupted()) return;
    add_kl(jobs_, text.options, at(text), length);
    changed_();
  }

  std::string at(const CompareText& text) const {
    return texts_.size() > 1 ? " at " + length_words(text.text_tokens.value_or(text.prompt_tokens)) : "";
  }

  const std::vector<CompareText>& texts_;
  const int rounds_;
  const bool kl_;
  Json& document_;
  const std::function<void()>& changed_;
  Jobs jobs_;
};

}  // namespace

void make_runs(const std::vector<CompareText>& texts, int rounds, bool kl, Json& document,
               const std::function<void()>& changed) {
  Runs(texts, rounds, kl, document, changed).all();
}

}  // namespace lacuna::cli
