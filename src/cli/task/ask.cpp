// SPDX-License-Identifier: Apache-2.0
// lacuna task (hidden): one method answers the samples of a task file. Each sample is a line of JSON on stdout as soon
// as it is done; the last line has the figures of the run. The model is loaded once, and what a prompt shares with the
// one before, a document and its earlier turns, is read once.
#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "cli/llama/logits.h"
#include "cli/llama/model.h"
#include "cli/llama/plugin.h"
#include "cli/llama/prompt.h"
#include "cli/run/outcome.h"
#include "cli/task/held.h"
#include "cli/task/prompts.h"
#include "cli/verbs.h"

namespace lacuna::cli {

namespace {

using namespace task;
using Json = nlohmann::ordered_json;

class Asker {
 public:
  Asker(const RunOptions& o, llama_context* context, Plugin* plugin)
      : o_(o), context_(context), plugin_(plugin), prompts_(llama_get_model(context), o.no_chat), held_(context) {}

  // "" or why decoding failed. What an interrupted sample came to is no line.
  std::string ask(const Sample& sample) {
    if (sample.context.empty() || sample.context != last_context_) held_.forget();
    last_context_ = sample.context;
    Json line;
    const std::string why = sample.turns.empty() ? foretell(sample, line) : answer_all(sample, line);
    if (!why.empty() || interrupted()) return why;
    fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
    std::fflush(stdout);
    ++done_;
    return "";
  }
  int done() const { return done_; }

  // The figures of all samples; times to the first token are those of first questions.
  Json figures(const RunOptions& o) const {
    Json j = run_json(o, sum_, plugin_ ? plugin_->report() : nlohmann::json());
    j["ttft_s"] = done_ > 0 ? Json(first_s_ / done_) : Json();
    j["prompt_tokens"] = longest_;
    j["read_tokens"] = sum_.prompt_tokens;
    j.erase("text");
    return j;
  }

 private:
  std::string answer_all(const Sample& sample, Json& line) {
    line["answers"] = Json::array();
    for (std::size_t turn = 0; turn < sample.turns.size() && !interrupted(); ++turn) {
      const std::vector<llama_token> prompt = begin(sample, turn);
      RunOptions o = o_;
      o.predict = sample.answer_tokens;
      Outcome out;
      const int from = held_.keep_for(prompt);
      if (const std::string why = answer(
              context_, o, prompt, from, false, [] {}, out);
          !why.empty())
        return why;
      line["answers"].push_back(out.text);
      sum_.prompt_tokens += out.read - from;
      sum_.generated += out.generated;
      sum_.decode_steps += out.decode_steps;
      sum_.decode_s += out.decode_s;
      add_reading(out.ttft_s, turn == 0);
    }
    return "";
  }

  // Sum of the negative log-likelihoods of the second half's tokens, and the likeliest token at each place.
  std::string foretell(const Sample& sample, Json& line) {
    const std::vector<llama_token> prompt = begin(sample, 0);
    const int n = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(context_)));
    const int total = static_cast<int>(prompt.size()), first = total / 2, stride = logit_stride(o_.ubatch, n);
    held_.forget();
    held_.keep_for(prompt);
    double nll = 0;
    line["tops"] = Json::array();
    const double start = now();
    for (int at = 0; at < total && !interrupted(); at += o_.ubatch) {
      const int count = std::min(o_.ubatch, total - at);
      if (const int code = decode(context_, &prompt[static_cast<std::size_t>(at)], count, at, first, stride))
        return fmt::format("llama_decode failed at token {} (code {}): {}", at, code, last_log_errors());
      llama_synchronize(context_);
      for (int i = 0; i < count; ++i) {
        const int position = at + i;
        if (position < first || (position - first) % stride != 0 || position + 1 == total) continue;
        const float* logits = llama_get_logits_ith(context_, i);
        const int top = top_of(logits, n);
        nll += log_sum_exp(logits, n, logits[top]) - logits[prompt[static_cast<std::size_t>(position) + 1]];
        line["tops"].push_back(top);
      }
    }
    line["nll"] = nll;
    sum_.prompt_tokens += total;
    add_reading(now() - start, true);
    return "";
  }

  std::vector<llama_token> begin(const Sample& sample, std::size_t turn) {
    std::vector<llama_token> prompt = prompts_.of(sample, turn);
    const auto tokens = static_cast<long long>(prompt.size());
    longest_ = std::max(longest_, tokens);
    if (plugin_) plugin_->announce(llama_model_n_layer(llama_get_model(context_)), tokens);
    return prompt;
  }

  void add_reading(double seconds, bool first) {
    sum_.ttft_s += seconds;
    if (first) first_s_ += seconds;
  }

  const RunOptions& o_;
  llama_context* context_;
  Plugin* plugin_;  // null: stock
  Prompts prompts_;
  Held held_;
  std::string last_context_;
  int done_ = 0;
  Outcome sum_;
  double first_s_ = 0;
  long long longest_ = 0;
};

int ask_all(RunOptions o) {
  const bool stock = o.method == "stock";
  keep_log(o.verbose);
  catch_interrupt();
  std::string text, error;
  std::vector<Sample> samples;
  if (!read_text(o.file, text, error) || !read_jsonl(text, o.file, o.predict, samples, error)) return bad_input(error);
  if (error = load_backends(); !error.empty()) return bad_input(error);
  Plugin plugin;
  if (!stock) {
    if (error = plugin.load(); !error.empty()) return bad_input(error);
    if (error = plugin.configure(plugin_text(o, o.method)); !error.empty()) return bad_input(error);
  }
  llama_backend_init();
  const ModelPtr model = load_model(o.model, stock ? std::vector<ggml_backend_dev_t>{} : plugin.devices(), error);
  if (interrupted()) return stopped(0, "samples");
  if (!model) return bad_input(error);
  long long most = 0;
  for (const Sample& s : samples) most = std::max(most, Prompts(model.get(), o.no_chat).tokens_of(s));
  o.predict = 0;  // `most` has it
  const int tokens = context_tokens(model.get(), o, static_cast<int>(most), error);
  if (tokens == 0) return bad_input(error);
  const ContextPtr context = make_context(model.get(), o, tokens, o.batch, o.ubatch, error);
  if (!context) return bad_input(error);
  warm_up(context.get());
  if (!stock) plugin.reset_report();
  Asker asker(o, context.get(), stock ? nullptr : &plugin);
  for (const Sample& sample : samples) {
    if (interrupted()) break;
    if (error = asker.ask(sample); !error.empty()) return bad_input(error);
  }
  fmt::print("{}\n", asker.figures(o).dump());
  return interrupted() ? stopped(asker.done(), "samples") : kOk;
}

}  // namespace

int verb_task(int argc, char** argv) {
  CLI::App app("Answers the samples of a task file (-f) with one method.", "task");
  RunOptions o;
  app.add_option("--method", o.method, "slug:key=value..., or stock")->type_name("SPEC")->capture_default_str();
  add_run_options(app, o);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  for (const std::string& why : {check_run_options(o), check_method(o.method)})
    if (!why.empty()) return bad_input(why);
  return ask_all(o);
}

}  // namespace lacuna::cli
