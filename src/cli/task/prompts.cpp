// SPDX-License-Identifier: Apache-2.0
#include "cli/task/prompts.h"

#include "cli/llama/prompt.h"

namespace lacuna::cli::task {

namespace {

std::string plain(const Sample& sample, std::size_t last) {
  std::string text = sample.context;
  for (std::size_t i = 0; i <= last; ++i) {
    const Turn& turn = sample.turns[i];
    if (!turn.question.empty()) text += (text.empty() ? "" : "\n\n") + turn.question;
    if (i < last)
      text += "\n" + right_answer(sample, turn);
    else if (!turn.prefix.empty())
      text += "\n" + turn.prefix;
  }
  return text;
}

std::vector<Message> messages(const Sample& sample, std::size_t last) {
  std::vector<Message> list;
  for (std::size_t i = 0; i <= last; ++i) {
    const Turn& turn = sample.turns[i];
    const bool first = i == 0 && !sample.context.empty();
    list.push_back({"user", first ? sample.context + "\n\n" + turn.question : turn.question});
    if (i < last) list.push_back({"assistant", right_answer(sample, turn)});
  }
  return list;
}

}  // namespace

std::vector<llama_token> Prompts::of(const Sample& sample, std::size_t turn) const {
  const llama_vocab* vocab = llama_model_get_vocab(model_);
  if (sample.turns.empty()) return tokenized(vocab, sample.context, false);
  // As run does: a text without a question is no message to anybody.
  const bool asks = !sample.turns[0].question.empty();
  const std::string chat = no_chat_ || !asks ? "" : in_template(model_, messages(sample, turn));
  return chat.empty() ? tokenized(vocab, plain(sample, turn), false)
                      : tokenized(vocab, chat + sample.turns[turn].prefix, true);
}

long long Prompts::tokens_of(const Sample& sample) const {
  const std::size_t last = sample.turns.empty() ? 0 : sample.turns.size() - 1;
  return static_cast<long long>(of(sample, last).size()) + sample.answer_tokens;
}

}  // namespace lacuna::cli::task
