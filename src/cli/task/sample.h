// SPDX-License-Identifier: Apache-2.0
// A sample of a task: a text, questions about it, and what a right answer holds. Built-in tasks make them, users bring
// them as JSONL: one object a line, docs/compare.md has its keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lacuna::cli::task {

// How an answer is scored, 0 to 1: any or all of the right answers stand in it, it is one of them, or the words it
// shares with one (F1). Perplexity asks nothing and has no best score.
enum class Scoring { any, all, exact, f1, perplexity };

struct Turn {
  std::string question;
  std::string prefix;                // how the answer begins: the model goes on behind it
  std::vector<std::string> answers;  // the right ones
};

struct Sample {
  std::string context;      // read once, before the first question
  std::vector<Turn> turns;  // in turn k the model sees the earlier ones with their right answers; none: perplexity
  Scoring scoring = Scoring::any;
  int answer_tokens = 32;       // at most, of each answer
  std::optional<double> depth;  // 0 to 1: where in the context the answer stands
};

// What the model would have written, had it been right.
std::string right_answer(const Sample& sample, const Turn& turn);

std::string_view name_of(Scoring scoring);
std::string to_jsonl(const std::vector<Sample>& samples);
// False, with `error` ("NAME:LINE: ..."), at the first line that is no sample, or if there is none. `answer_tokens`:
// of samples that do not say.
bool read_jsonl(std::string_view text, const std::string& name, int answer_tokens, std::vector<Sample>& samples,
                std::string& error);

}  // namespace lacuna::cli::task
