// SPDX-License-Identifier: Apache-2.0
// lacuna kl (hidden): how far each method's next-token distribution lies from stock llama.cpp's.
//
// All contexts read the same prompt in lockstep, micro-batch by micro-batch (teacher-forced), and
// the logits of its second half are compared as they come: one micro-batch of logits per context is
// all that is ever held. The floor is stock against itself without flash attention and with micro-batches
// half as long: llama.cpp quantises activations, so whatever differs in a last bit flips some roundings,
// and no engine can be nearer to stock than stock is.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/llama/logits.h"
#include "cli/llama/model.h"
#include "cli/llama/plugin.h"
#include "cli/llama/prompt.h"
#include "cli/verbs.h"
#include "engine/registry.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;

// The next-token distribution of stock at one position.
struct Distribution {
  std::vector<float> probability, log_probability;  // [vocabulary]
  int top = 0;
};

void make_distribution(const float* logits, int n, Distribution& d) {
  d.probability.resize(static_cast<std::size_t>(n));
  d.log_probability.resize(static_cast<std::size_t>(n));
  d.top = top_of(logits, n);
  const double norm = log_sum_exp(logits, n, logits[d.top]);
  for (int i = 0; i < n; ++i) {
    const double log_p = logits[i] - norm;
    d.log_probability[static_cast<std::size_t>(i)] = static_cast<float>(log_p);
    d.probability[static_cast<std::size_t>(i)] = static_cast<float>(std::exp(static_cast<float>(log_p)));
  }
}

// One context that is compared with stock.
struct Runner {
  std::string name;
  ContextPtr context;
  std::string error;       // not empty: fell out
  double kl = 0;           // sum over positions
  long long same = 0, positions = 0;

  void add(const Distribution& stock, const float* logits, int n) {
    const int top = top_of(logits, n);
    const double norm = log_sum_exp(logits, n, logits[top]);
    double sum = 0;  // KL(stock || this), in nats
    for (int i = 0; i < n; ++i) {
      const auto at = static_cast<std::size_t>(i);
      sum += static_cast<double>(stock.probability[at]) * (stock.log_probability[at] - (logits[i] - norm));
    }
    kl += std::max(sum, 0.0);  // never negative but for rounding
    same += top == stock.top;
    ++positions;
  }
  Json as_json() const {
    Json j;
    j["method"] = name;
    const bool any = error.empty() && positions > 0;
    j["kl_mean"] = any ? Json(kl / static_cast<double>(positions)) : Json();
    j["same_top_share"] = any ? Json(static_cast<double>(same) / static_cast<double>(positions)) : Json();
    j["error"] = error.empty() ? Json() : Json(error);
    return j;
  }
};

int kl(const RunOptions& o, const std::vector<std::string>& methods) {
  keep_log(o.verbose);
  catch_interrupt();
  std::string error;
  if (error = load_backends(); !error.empty()) return bad_input(error);
  llama_backend_init();

  // Stock first, its contexts too, and only then the plug-in: a context takes every accelerator
  // that is registered when it is made.
  const ModelPtr stock_model = load_model(o.model, {}, error);
  if (!stock_model) return interrupted() ? stopped(0) : bad_input(error);
  std::vector<llama_token> prompt;
  if (!make_prompt(stock_model.get(), o, prompt, error)) return bad_input(error);
  const int total = static_cast<int>(prompt.size());
  const int tokens = context_tokens(stock_model.get(), o, total, error);
  if (tokens == 0) return bad_input(error);
  const ContextPtr stock = make_context(stock_model.get(), o, tokens, o.ubatch, o.ubatch, error);
  if (!stock) return bad_input(error);
  std::vector<Runner> runners(1);
  runners[0].name = "floor";
  const bool plain_v = o.cache_type_v[0] == 'f' || o.cache_type_v[0] == 'b';  // quantised V needs flash attention
  runners[0].context = make_context(stock_model.get(), o, tokens, o.ubatch, std::max(1, o.ubatch / 2), error, !plain_v);
  if (!runners[0].context) return bad_input(error);

  Plugin plugin;
  ModelPtr model;
  if (!methods.empty()) {
    error = plugin.load();
    if (error.empty()) error = plugin.configure(plugin_text(o, methods[0]));
    if (error.empty()) model = load_model(o.model, plugin.devices(), error);
    if (interrupted()) return stopped(0);
    // Before the contexts are made: each takes over what was said last, and later words reach one only.
    if (error.empty()) plugin.announce(llama_model_n_layer(model.get()), total);
  }
  for (const std::string& method : methods) {
    Runner r;
    r.name = method;
    r.error = error;  // no plug-in: no method runs, each says why
    if (r.error.empty()) r.error = plugin.configure(plugin_text(o, method));
    if (r.error.empty()) r.context = make_context(model.get(), o, tokens, o.ubatch, o.ubatch, r.error);
    if (r.error.empty()) warm_up(r.context.get());  // Lacuna counts from the second graph on
    runners.push_back(std::move(r));
  }

  const int n = llama_vocab_n_tokens(llama_model_get_vocab(stock_model.get()));
  const int first = total / 2;
  const int stride = logit_stride(o.ubatch, n);
  Distribution d;
  Progress bar("comparing logits", total, "tokens");
  int at = 0;
  while (at < total && !interrupted()) {
    const int count = std::min(o.ubatch, total - at);
    const llama_token* const here = &prompt[static_cast<std::size_t>(at)];
    if (const int code = decode(stock.get(), here, count, at, first, stride))
      return bad_input(fmt::format("stock llama_decode failed at token {} (code {}): {}", at, code, last_log_errors()));
    for (Runner& r : runners) {
      if (!r.error.empty()) continue;
      if (const int code = decode(r.context.get(), here, count, at, first, stride))
        r.error = fmt::format("llama_decode failed at token {} (code {}): {}", at, code, last_log_errors());
    }
    for (int i = 0; i < count && !interrupted(); ++i) {
      const int position = at + i;
      if (position < first || (position - first) % stride != 0) continue;
      make_distribution(llama_get_logits_ith(stock.get(), i), n, d);
      for (Runner& r : runners)
        if (r.error.empty()) r.add(d, llama_get_logits_ith(r.context.get(), i), n);
    }
    at += count;
    bar.update(at);
  }
  bar.clear();
  if (interrupted()) return stopped(at);
  Json j;
  j["positions"] = runners[0].positions;
  j["stride"] = stride;
  j["floor"] = runners[0].as_json();
  j["methods"] = Json::array();
  for (std::size_t i = 1; i < runners.size(); ++i) j["methods"].push_back(runners[i].as_json());
  fmt::print("{}\n", j.dump());
  return kOk;
}

}  // namespace

int verb_kl(int argc, char** argv) {
  CLI::App app("Compares the logits of methods with stock llama.cpp's over the second half of a prompt.", "kl");
  RunOptions o;
  std::string methods;
  app.add_option("--methods", methods, "method specs, separated by commas")->type_name("A,B,C");
  add_run_options(app, o);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (const std::string why = check_run_options(o); !why.empty()) return bad_input(why);
  o.audit = "off";  // logits are all that is wanted
  return kl(o, split_methods(methods));
}

}  // namespace lacuna::cli
