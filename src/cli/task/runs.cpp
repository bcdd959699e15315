// SPDX-License-Identifier: Apache-2.0
#include "cli/task/runs.h"

#include <algorithm>

#include <fmt/format.h>

#include "cli/compare/document.h"
#include "cli/compare/figures.h"
#include "cli/compare/jobs.h"
#include "cli/lengths.h"
#include "cli/llama/model.h"
#include "cli/task/figures.h"

namespace lacuna::cli::task {

namespace {

using Json = nlohmann::ordered_json;

// What a child wrote: a line per sample, and its figures if it came so far.
struct Written {
  std::vector<Json> samples;
  std::string figures;
};

Written read(const std::string& out) {
  Written w;
  for (std::size_t at = 0, end; (end = out.find('\n', at)) != std::string::npos; at = end + 1) {
    const std::string line = out.substr(at, end - at);
    Json j = Json::parse(line, nullptr, false);
    if (!j.is_object()) continue;
    if (j.contains("answers") || j.contains("tops"))
      w.samples.push_back(std::move(j));
    else
      w.figures = line;
  }
  return w;
}

class Runs {
 public:
  Runs(const TaskSets& sets, bool kl, Json& document, const std::function<void()>& changed)
      : sets_(sets), kl_(kl), document_(document), changed_(changed) {
    for (const CompareText& text : sets.texts) {
      for (const Json& method : document["methods"]) jobs_.plan(method.get<std::string>(), text.prompt_tokens);
      if (kl) jobs_.plan("kl", text.prompt_tokens);
    }
  }

  void all() {
    for (std::size_t i = 0; i < sets_.texts.size() && !interrupted(); ++i) one_length(i, document_["lengths"][i]);
  }

 private:
  void one_length(std::size_t at, Json& length) {
    const CompareText& text = sets_.texts[at];
    const std::vector<Sample>& samples = sets_.samples[at];
    const std::string words = text.text_tokens ? " at " + length_words(*text.text_tokens) : "";
    const auto progress = [&](const std::string& out) {
      const auto done = std::min<std::ptrdiff_t>(std::count(out.begin(), out.end(), '\n'), std::ssize(samples));
      return fmt::format("{} of {} samples", done, samples.size());
    };
    std::vector<Json> dense;
    for (Json& run : length["runs"]) {
      if (interrupted()) return;
      const std::string method = run["method"].get<std::string>();
      const ChildResult child = jobs_.run({"task", "--method=" + method}, text.options, method + words, progress);
      const Written written = read(child.out);
      run = run_of(child, written.figures, method);
      if (method == "dense") dense = written.samples;
      if (!written.samples.empty()) add_scores(samples, written.samples, dense, run);
      changed_();
      say(method + words, run);
    }
    if (!kl_ || interrupted()) return;
    add_kl(jobs_, sets_.of_first(at), words, length);
    changed_();
  }

  void say(const std::string& label, const Json& run) const {
    const std::string words = state_words(run);
    jobs_.say(label, words.empty()
                         ? fmt::format("{}, agreement {}, first token after {:.2f} s", score_words(document_, run),
                                       agreement_words(run), *figure(run, "/ttft_s"))
                         : words);
  }

  const TaskSets& sets_;
  const bool kl_;
  Json& document_;
  const std::function<void()>& changed_;
  Jobs jobs_;
};

}  // namespace

void make_task_runs(const TaskSets& sets, bool kl, Json& document, const std::function<void()>& changed) {
  Runs(sets, kl, document, changed).all();
}

}  // namespace lacuna::cli::task
