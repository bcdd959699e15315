// SPDX-License-Identifier: Apache-2.0
#include "cli/task/sets.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/words.h"
#include "cli/lengths.h"
#include "cli/llama/model.h"
#include "cli/llama/prompt.h"
#include "cli/task/prompts.h"
#include "cli/task/task.h"

namespace lacuna::cli::task {

namespace {

using Json = nlohmann::ordered_json;

constexpr int kSamples = 5, kLength = 4096;

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const Task* task : all_tasks()) names.emplace_back(task->name);
  return names;
}

// Measures a set and writes its samples where children read them.
bool add_set(const llama_model* model, const RunOptions& o, std::optional<long long> length,
             std::vector<Sample> samples, TaskSets& sets, std::string& error) {
  const Prompts prompts(model, o.no_chat);
  CompareText& t = sets.texts.emplace_back();
  long long most = 0, prompt = 0;  // with and without the answer
  for (const Sample& s : samples) {
    const long long tokens = prompts.tokens_of(s);
    most = std::max(most, tokens);
    prompt = std::max(prompt, tokens - s.answer_tokens);
    if (tokens > s.answer_tokens) continue;
    error = fmt::format("sample {} has no tokens of this model", &s - samples.data() + 1);
    return false;
  }
  t.options = o;
  t.options.predict = 0;  // `most` has the answers
  t.text_tokens = length;
  t.prompt_tokens = static_cast<int>(prompt);
  t.context_tokens = context_tokens(model, t.options, static_cast<int>(most), error);
  if (t.context_tokens == 0) return false;
  t.options.predict = o.predict;
  t.kv_cache_bytes = cache_bytes(facts_of(model), t.options, t.context_tokens);
  if (error = t.cut.write(to_jsonl(samples)); !error.empty()) return false;
  t.options.file = t.cut.path();
  if (error = sets.first.emplace_back().write(samples[0].context); !error.empty()) return false;
  sets.samples.push_back(std::move(samples));
  return true;
}

bool read_set(const llama_model* model, const RunOptions& o, const TaskOptions& task, const std::string& text,
              TaskSets& sets, std::string& error) {
  std::vector<Sample> samples;
  if (!read_jsonl(text, task.name, o.predict, samples, error)) return false;
  if (task.samples > 0 && samples.size() > static_cast<std::size_t>(task.samples))
    samples.resize(static_cast<std::size_t>(task.samples));
  if (task.answers)
    for (Sample& s : samples) s.answer_tokens = s.turns.empty() ? 0 : o.predict;
  const auto asks = [](const Sample& s) { return !s.turns.empty(); };
  if (!std::all_of(samples.begin(), samples.end(), asks) && std::any_of(samples.begin(), samples.end(), asks)) {
    error = fmt::format("{}: mixes perplexity with questions, which have no common score; make two files", task.name);
    return false;
  }
  const std::size_t n = samples.size();
  if (!add_set(model, o, std::nullopt, std::move(samples), sets, error)) {
    error = fmt::format("{}: {}", task.name, error);
    return false;
  }
  sets.about = {{"name", std::filesystem::path(task.name).stem().string()},
                {"summary", "samples of a file"},
                {"paper", nullptr},
                {"file", task.name},
                {"perplexity", sets.samples[0][0].turns.empty()},
                {"samples", n},
                {"seed", nullptr}};
  return true;
}

bool make_sets(const llama_model* model, const RunOptions& o, const TaskOptions& options, const std::string& text,
               const std::vector<int>& lengths, TaskSets& sets, std::string& error) {
  const Task& task = *find_task(options.name);
  const Prompts prompts(model, o.no_chat);
  const int n = options.samples > 0 ? options.samples : kSamples;
  const auto with_answers = [&](const Sample& sample) {
    Sample s = sample;
    if (options.answers && !s.turns.empty()) s.answer_tokens = o.predict;
    return s;
  };
  for (const int length : lengths) {
    const Request request = {.text = text,
                             .tokens_of = [&](const Sample& s) { return prompts.tokens_of(with_answers(s)); },
                             .tokens = length,
                             .samples = n};
    std::vector<Sample> samples;
    bool good = make_samples(task, request, o.seed, samples, error);
    for (Sample& s : samples) s = with_answers(s);
    good = good && add_set(model, o, length, std::move(samples), sets, error);
    if (good) continue;
    error = fmt::format("--task {} at {} tokens of {}: {}", task.name, length_words(length), o.file, error);
    return false;
  }
  sets.about = {{"name", task.name},
                {"summary", task.summary},
                {"paper", task.paper.empty() ? Json() : Json(task.paper)},
                {"file", nullptr},
                {"perplexity", task.scoring == Scoring::perplexity},
                {"samples", n},
                {"seed", o.seed}};
  return true;
}

}  // namespace

RunOptions TaskSets::of_first(std::size_t length) const {
  const Sample& sample = samples[length][0];
  RunOptions o = texts[length].options;
  o.file = sample.context.empty() ? "" : first[length].path();
  o.prompt = sample.turns.empty() ? "" : sample.turns[0].question;
  return o;
}

bool is_task_file(const std::string& name) { return name.ends_with(".jsonl"); }

std::string check_task(const TaskOptions& task) {
  if (is_task_file(task.name) || find_task(task.name)) return "";
  const std::vector<std::string> names = task_names();
  const std::string near = nearest(task.name, names);
  return fmt::format("--task {}: no such task{}; there are {}, and files of samples (*.jsonl)", task.name,
                     near.empty() ? "" : fmt::format(": did you mean '{}'?", near), fmt::join(names, ", "));
}

std::string default_text(const std::string& model) {
  const std::filesystem::path known = std::filesystem::path("texts") / "demo.txt";
  for (const auto& folder : {std::filesystem::path(model).parent_path(), std::filesystem::path("models")}) {
    std::error_code bad;
    if (std::filesystem::is_regular_file(folder / known, bad)) return (folder / known).string();
  }
  return "";
}

bool make_task_sets(const RunOptions& o, const TaskOptions& task, std::vector<int> lengths, TaskSets& sets,
                    std::string& error) {
  std::string text;
  if (!read_text(o.file, text, error)) return false;
  if (text.size() > kMostPromptBytes) {
    error = fmt::format("{} has {}; at most 1 GiB is taken", o.file, human_bytes(static_cast<double>(text.size())));
    return false;
  }
  keep_log(o.verbose);
  if (error = load_backends(); !error.empty()) return false;
  const ModelPtr model = load_vocabulary(o.model, error);
  if (!model) return false;
  if (is_task_file(task.name)) return read_set(model.get(), o, task, text, sets, error);
  if (lengths.empty()) lengths = {std::min(kLength, std::max(1, trained_tokens(model.get())))};
  return make_sets(model.get(), o, task, text, lengths, sets, error);
}

}  // namespace lacuna::cli::task
