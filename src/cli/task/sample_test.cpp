// SPDX-License-Identifier: Apache-2.0
#include "cli/task/sample.h"

#include <gtest/gtest.h>

namespace lacuna::cli::task {
namespace {

// The samples of a text, which must be good.
std::vector<Sample> read(const std::string& text) {
  std::vector<Sample> samples;
  std::string error;
  EXPECT_TRUE(read_jsonl(text, "t.jsonl", 24, samples, error)) << error;
  return samples;
}

std::string refusal(const std::string& text) {
  std::vector<Sample> samples;
  std::string error;
  EXPECT_FALSE(read_jsonl(text, "t.jsonl", 24, samples, error)) << text;
  return error;
}

TEST(TaskFile, ReadsWhatTheFieldWrites) {
  const std::vector<Sample> samples = read(
      "{\"context\": \"c\", \"question\": \"q\", \"answer\": 42, \"unknown\": 1}\n"
      "\n"
      "{\"input\": \"q\", \"context\": \"c\", \"answers\": [\"a\", \"b\"], \"score\": \"f1\"}\r\n"
      "{\"input\": \"q\", \"outputs\": [\"a\"], \"answer_prefix\": \"It is\", \"max_tokens\": 7, \"depth\": 0.25}\n"
      "{\"context\": \"c\", \"turns\": [{\"question\": \"q\", \"answer\": \"a\"}, {\"question\": \"r\", \"answer\": "
      "\"b\"}]}\n"
      "{\"context\": \"c\", \"score\": \"perplexity\"}");
  ASSERT_EQ(samples.size(), 5u);
  EXPECT_EQ(samples[0].turns[0].answers, std::vector<std::string>{"42"});
  EXPECT_EQ(samples[0].answer_tokens, 24);
  EXPECT_EQ(samples[1].scoring, Scoring::f1);
  EXPECT_EQ(samples[1].turns[0].question, "q");
  EXPECT_EQ(samples[2].turns[0].prefix, "It is");
  EXPECT_EQ(samples[2].answer_tokens, 7);
  EXPECT_EQ(samples[2].depth, 0.25);
  EXPECT_EQ(samples[3].turns.size(), 2u);
  EXPECT_TRUE(samples[4].turns.empty());
}

TEST(TaskFile, WhatIsWrittenIsReadAgain) {
  Sample s;
  s.context = "a \"text\"\nof lines \xFF";  // a byte that is no UTF-8
  s.turns = {{"q", "p", {"a", "b"}}, {"r", "", {"c"}}};
  s.scoring = Scoring::all;
  s.answer_tokens = 9;
  s.depth = 0.5;
  const std::string text = to_jsonl({s, s});
  EXPECT_EQ(to_jsonl(read(text)), text);
}

TEST(TaskFile, NamesTheLineThatIsWrong) {
  const std::string good = "{\"context\": \"c\", \"question\": \"q\", \"answer\": \"a\"}\n";
  const std::pair<const char*, const char*> kBad[] = {
      {"{\"context\": ", "is no JSON"},
      {"[1]", "must be an object"},
      {"{\"question\": \"q\"}", "needs 'answer'"},
      {"{\"answer\": \"a\"}", "needs 'question'"},
      {"{\"question\": 3, \"answer\": \"a\"}", "'question' must be a string"},
      {"{\"question\": \"q\", \"answers\": []}", "'answers' is empty"},
      {"{\"question\": \"q\", \"answers\": [\" \"]}", "an empty one"},
      {"{\"question\": \"q\", \"answer\": {\"a\": 1}}", "'answers' must be"},
      {"{\"question\": \"q\", \"answer\": \"a\", \"score\": \"best\"}", "need any, all, exact, f1, perplexity"},
      {"{\"question\": \"q\", \"answer\": \"a\", \"max_tokens\": 0}", "need 1..1048576"},
      {"{\"question\": \"q\", \"answer\": \"a\", \"depth\": 1.5}", "need 0..1"},
      {"{\"context\": \"c\", \"turns\": [{\"question\": \"q\", \"answer\": \"a\"}, {\"answer\": \"b\"}]}",
       "turn 2: needs 'question'"},
      {"{\"context\": \"c\", \"turns\": []}", "'turns' must be"},
      {"{\"context\": \"c\", \"turns\": [3]}", "turn 1: must be an object"},
      {"{\"score\": \"perplexity\"}", "perplexity needs a 'context'"}};
  for (const auto& [line, words] : kBad) {
    const std::string why = refusal(good + "\n" + line + "\n");
    EXPECT_EQ(why.substr(0, 11), "t.jsonl:3: ") << why;
    EXPECT_NE(why.find(words), std::string::npos) << line << "\n" << why;
  }
  EXPECT_NE(refusal(" \n").find("holds no samples"), std::string::npos);
}

}  // namespace
}  // namespace lacuna::cli::task
