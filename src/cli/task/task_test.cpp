// SPDX-License-Identifier: Apache-2.0
// Built-in tasks: what they make is the same for the same seed, fits the tokens, and holds its answer where it says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "cli/task/haystack.h"
#include "cli/task/score.h"
#include "cli/task/task.h"

namespace lacuna::cli::task {
namespace {

// A token is a word here; a turn costs four more, as a chat template would.
long long words_in(const std::string& text) {
  std::istringstream in(text);
  std::string word;
  long long n = 0;
  while (in >> word) ++n;
  return n;
}

long long tokens_of(const Sample& s) {
  long long n = words_in(s.context) + s.answer_tokens;
  for (const Turn& t : s.turns) n += words_in(t.question) + words_in(right_answer(s, t)) + 4;
  return n;
}

// Sentences of random words, all letters, so that no number stands in it by chance.
std::string text_of(int sentences) {
  Rng rng(7);
  std::string text;
  for (int i = 0; i < sentences; ++i) {
    for (int w = 0; w < 9; ++w) {
      std::string word;
      for (int l = 0; l < 6; ++l) word += static_cast<char>('a' + rng.below(26));
      text += (w > 0 ? " " : "") + word;
    }
    text += i % 5 == 4 ? ".\n" : ". ";
  }
  return text;
}

const std::string& long_text() {
  static const std::string text = text_of(3000);
  return text;
}

Request request_of(int tokens, int samples = 5) {
  return {.text = long_text(), .tokens_of = tokens_of, .tokens = tokens, .samples = samples};
}

std::vector<Sample> made(const Task& task, const Request& request, std::uint64_t seed = 1) {
  std::vector<Sample> samples;
  std::string error;
  EXPECT_TRUE(make_samples(task, request, seed, samples, error)) << task.name << ": " << error;
  return samples;
}

std::string refusal(const Task& task, const Request& request) {
  std::vector<Sample> samples;
  std::string error;
  EXPECT_FALSE(make_samples(task, request, 1, samples, error)) << task.name;
  return error;
}

TEST(TaskMake, NamesAreDifferentAndFound) {
  std::set<std::string_view> names;
  for (const Task* task : all_tasks()) {
    EXPECT_TRUE(names.insert(task->name).second) << task->name;
    EXPECT_EQ(find_task(task->name), task);
  }
  EXPECT_EQ(names.size(), 8u);
  EXPECT_EQ(find_task("no-such-task"), nullptr);
}

TEST(TaskMake, SameSeedSameSamples) {
  for (const Task* task : all_tasks()) {
    const std::string first = to_jsonl(made(*task, request_of(700)));
    EXPECT_EQ(first, to_jsonl(made(*task, request_of(700)))) << task->name;
    EXPECT_NE(first, to_jsonl(made(*task, request_of(700), 2))) << task->name;
  }
}

TEST(TaskMake, SamplesDifferAndMoreOfThemChangeNone) {
  for (const Task* task : all_tasks()) {
    if (task->name == "needle") continue;  // its depths are spread over the samples there are
    const std::vector<Sample> few = made(*task, request_of(700, 3)), more = made(*task, request_of(700, 6));
    EXPECT_EQ(to_jsonl(few), to_jsonl({more.begin(), more.begin() + 3})) << task->name;
    EXPECT_NE(to_jsonl({more[0]}), to_jsonl({more[1]})) << task->name;
  }
}

TEST(TaskMake, FitsTheTokensAndUsesThem) {
  for (const Task* task : all_tasks())
    for (const int tokens : {400, 1000, 3000})
      for (const Sample& s : made(*task, request_of(tokens))) {
        EXPECT_LE(tokens_of(s), tokens) << task->name;
        EXPECT_GE(tokens_of(s), tokens * 95 / 100) << task->name;
        EXPECT_EQ(s.scoring, task->scoring) << task->name;
      }
}

TEST(TaskMake, TheAnswerStandsInTheTextAndScores) {
  for (const Task* task : all_tasks())
    for (const Sample& s : made(*task, request_of(1000))) {
      EXPECT_EQ(s.turns.empty(), task->scoring == Scoring::perplexity) << task->name;
      for (const Turn& t : s.turns) {
        for (const std::string& answer : t.answers)
          EXPECT_NE(s.context.find(answer), std::string::npos) << task->name << ": " << answer;
        EXPECT_EQ(t.question.find(t.answers[0]), std::string::npos) << task->name;
        EXPECT_EQ(score_answer(s.scoring, t.answers, right_answer(s, t)), 1.0) << task->name;
        EXPECT_EQ(score_answer(s.scoring, t.answers, t.prefix), 0.0) << task->name;
      }
    }
}

TEST(TaskMake, NeedlesStandAtTheirDepths) {
  const std::vector<Sample> samples = made(*find_task("needle"), request_of(2000));
  ASSERT_EQ(samples.size(), 5u);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    EXPECT_EQ(samples[i].depth, static_cast<double>(i) / 4);
    const std::string& text = samples[i].context;
    const std::string sentence = samples[i].turns[0].prefix + " " + samples[i].turns[0].answers[0] + ".";
    const std::size_t at = text.find(sentence);
    ASSERT_NE(at, std::string::npos);
    EXPECT_NEAR(static_cast<double>(at) / static_cast<double>(text.size() - sentence.size()), *samples[i].depth, 0.02);
    const bool at_an_end = at == 0 || at + sentence.size() == text.size();
    EXPECT_TRUE(at_an_end || text.substr(at - 2, 2) == ". " || text[at - 1] == '\n') << "it cuts a sentence";
  }
  EXPECT_EQ(made(*find_task("needle"), request_of(2000, 1))[0].depth, 0.5);
  for (const Sample& s : made(*find_task("needle"), request_of(500, 25)))
    EXPECT_NEAR(*s.depth * 10, std::round(*s.depth * 10), 1e-9);  // eleven depths, however many samples
}

TEST(TaskMake, DrawnDepthsAreTrue) {
  for (const char* name : {"passkey", "multi-key", "kv-retrieval"})
    for (const Sample& s : made(*find_task(name), request_of(3000, 8))) {
      const std::size_t at = s.context.find(s.turns[0].answers[0]);
      EXPECT_NEAR(static_cast<double>(at) / static_cast<double>(s.context.size()), *s.depth, 0.05) << name;
    }
}

TEST(TaskMake, CommonWordsAreTheMostFrequent) {
  for (const Sample& s : made(*find_task("common-words"), request_of(1500))) {
    std::map<std::string, int> count;
    std::string list = s.context.substr(s.context.find("\n\n") + 2), word;
    std::replace(list.begin(), list.end(), ',', ' ');
    for (std::istringstream in(list); in >> word;) ++count[word];
    const std::vector<std::string>& common = s.turns[0].answers;
    for (const auto& [w, n] : count)
      EXPECT_EQ(n, std::find(common.begin(), common.end(), w) == common.end() ? 3 : 30) << w;
  }
}

TEST(TaskMake, ChainsAreSaidInOrder) {
  for (const Sample& s : made(*find_task("variable-tracking"), request_of(1000))) {
    std::size_t last = 0;
    const std::vector<std::string>& names = s.turns[0].answers;
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::size_t at = s.context.find("VAR " + names[i] + " = " + (i == 0 ? "" : "VAR " + names[i - 1] + "."));
      ASSERT_NE(at, std::string::npos) << names[i];
      EXPECT_GE(at, last);
      last = at;
    }
  }
}

TEST(TaskMake, TooShortTextsAndLengthsNameBoth) {
  const std::string small = text_of(40);  // 360 words
  for (const Task* task : all_tasks()) {
    if (task->name == "kv-retrieval") continue;  // reads no text
    Request request = request_of(2000);
    request.text = small;
    EXPECT_NE(refusal(*task, request).find("needed"), std::string::npos) << task->name;
  }
  Request request = request_of(2000);
  request.text = small;
  EXPECT_NE(refusal(*find_task("perplexity"), request).find("has 360 tokens, 2000 are needed"), std::string::npos);
  for (const Task* task : all_tasks()) {
    if (task->name == "perplexity") continue;  // asks nothing
    EXPECT_NE(refusal(*task, request_of(20)).find("20 tokens do not hold"), std::string::npos) << task->name;
  }
}

TEST(TaskHide, KeepsTheTextAndTheOrder) {
  const std::string text = "One two. Three four.\nFive six. Seven eight.";
  EXPECT_EQ(hide(text, {{0, "A."}, {1, "Z."}}), "A. " + text + " Z.");
  EXPECT_EQ(hide(text, {{0.5, "A."}, {0.5, "B."}}), "One two. Three four.\nA.\nB.\nFive six. Seven eight.");
  EXPECT_EQ(hide("", {{0.3, "A."}}), "A.");
  const std::string kanji = "\xE6\xBC\xA2\xE5\xAD\x97\xE6\xBC\xA2\xE5\xAD\x97";  // no blank, no sentence
  const std::string hidden = hide(kanji, {{0.45, "A."}});
  EXPECT_EQ(hidden, kanji.substr(0, 6) + " A. " + kanji.substr(6));
}

}  // namespace
}  // namespace lacuna::cli::task
