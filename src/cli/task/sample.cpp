// SPDX-License-Identifier: Apache-2.0
#include "cli/task/sample.h"

#include <algorithm>
#include <initializer_list>
#include <iterator>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lacuna::cli::task {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kScorings[] = {"any", "all", "exact", "f1", "perplexity"};
constexpr int kMostAnswerTokens = 1 << 20;

// The value of the first of these keys that is there.
const Json* find(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (const auto at = object.find(key); at != object.end() && !at->is_null()) return &*at;
  return nullptr;
}

// The readers below answer "" or what is wrong.

std::string read_words(const Json& object, std::initializer_list<const char*> keys, std::string& words) {
  const Json* value = find(object, keys);
  if (value && !value->is_string()) return fmt::format("'{}' must be a string", *keys.begin());
  if (value) words = value->get<std::string>();
  return "";
}

std::string read_answers(const Json& object, std::vector<std::string>& answers) {
  const Json* value = find(object, {"answers", "answer", "outputs"});
  if (!value) return "needs 'answer' or 'answers'";
  const Json list = value->is_array() ? *value : Json::array({*value});
  for (const Json& answer : list) {
    if (!answer.is_string() && !answer.is_number()) return "'answers' must be a string, a number, or a list of them";
    answers.push_back(answer.is_string() ? answer.get<std::string>() : answer.dump());
    if (answers.back().find_first_not_of(" \t\r\n") == std::string::npos) return "'answers' has an empty one";
  }
  return answers.empty() ? "'answers' is empty" : "";
}

std::string read_turn(const Json& object, Turn& turn) {
  for (const std::string& why :
       {read_words(object, {"question", "input"}, turn.question),
        read_words(object, {"prefix", "answer_prefix"}, turn.prefix), read_answers(object, turn.answers)})
    if (!why.empty()) return why;
  return "";
}

std::string read_turns(const Json& object, Sample& sample) {
  const Json* turns = find(object, {"turns"});
  if (turns && (!turns->is_array() || turns->empty())) return "'turns' must be a list of objects with a question each";
  const Json list = turns ? *turns : Json::array({object});
  for (std::size_t i = 0; i < list.size(); ++i) {
    Turn& turn = sample.turns.emplace_back();
    std::string why = list[i].is_object() ? read_turn(list[i], turn) : "must be an object";
    if (why.empty() && turn.question.empty() && (i > 0 || sample.context.empty()))
      why = "needs 'question' (or 'context')";
    if (!why.empty()) return turns ? fmt::format("turn {}: {}", i + 1, why) : why;
  }
  return "";
}

std::string read_sample(const Json& object, Sample& sample) {
  if (!object.is_object()) return "must be an object: {\"context\": ..., \"question\": ..., \"answer\": ...}";
  if (const std::string why = read_words(object, {"context"}, sample.context); !why.empty()) return why;
  if (const Json* score = find(object, {"score"})) {
    const auto* const known = std::find(std::begin(kScorings), std::end(kScorings),
                                        score->is_string() ? score->get<std::string>() : std::string());
    if (known == std::end(kScorings))
      return fmt::format("'score' is {}, need {}", score->dump().substr(0, 60), fmt::join(kScorings, ", "));
    sample.scoring = static_cast<Scoring>(known - std::begin(kScorings));
  }
  if (const Json* tokens = find(object, {"max_tokens"})) {
    const double n = tokens->is_number() ? tokens->get<double>() : 0;
    if (!(n >= 1 && n <= kMostAnswerTokens))
      return fmt::format("'max_tokens' is {}, need 1..{}", tokens->dump().substr(0, 60), kMostAnswerTokens);
    sample.answer_tokens = static_cast<int>(n);
  }
  if (const Json* depth = find(object, {"depth"})) {
    const double d = depth->is_number() ? depth->get<double>() : -1;
    if (!(d >= 0 && d <= 1)) return fmt::format("'depth' is {}, need 0..1", depth->dump().substr(0, 60));
    sample.depth = d;
  }
  if (sample.scoring != Scoring::perplexity) return read_turns(object, sample);
  sample.answer_tokens = 0;
  return sample.context.empty() ? "perplexity needs a 'context'" : "";
}

Json turn_json(const Turn& turn) {
  Json j{{"question", turn.question}};
  if (!turn.prefix.empty()) j["prefix"] = turn.prefix;
  j["answers"] = turn.answers;
  return j;
}

Json sample_json(const Sample& sample) {
  Json j{{"context", sample.context}, {"score", name_of(sample.scoring)}};
  if (sample.answer_tokens > 0) j["max_tokens"] = sample.answer_tokens;
  if (sample.depth) j["depth"] = *sample.depth;
  for (const Turn& turn : sample.turns) j["turns"].push_back(turn_json(turn));
  return j;
}

}  // namespace

std::string right_answer(const Sample& sample, const Turn& turn) {
  const std::string answer =
      sample.scoring == Scoring::all ? fmt::format("{}", fmt::join(turn.answers, ", ")) : turn.answers.front();
  return turn.prefix.empty() ? answer : turn.prefix + " " + answer;
}

std::string_view name_of(Scoring scoring) { return kScorings[static_cast<int>(scoring)]; }

std::string to_jsonl(const std::vector<Sample>& samples) {
  std::string out;
  for (const Sample& sample : samples)  // a text's bytes that are no UTF-8 would throw
    out += sample_json(sample).dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  return out;
}

bool read_jsonl(std::string_view text, const std::string& name, int answer_tokens, std::vector<Sample>& samples,
                std::string& error) {
  std::size_t line = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view words = text.substr(at, end - at);
    at = end + 1;
    ++line;
    if (words.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Sample sample;
    sample.answer_tokens = answer_tokens;
    const Json object = Json::parse(words, nullptr, false);
    const std::string why =
        object.is_discarded() ? "is no JSON; a task file has one object on each line" : read_sample(object, sample);
    if (!why.empty()) {
      error = fmt::format("{}:{}: {}", name, line, why);
      return false;
    }
    samples.push_back(std::move(sample));
  }
  if (samples.empty()) error = fmt::format("{}: holds no samples; a task file has one object on each line", name);
  return !samples.empty();
}

}  // namespace lacuna::cli::task
