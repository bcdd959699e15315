// SPDX-License-Identifier: Apache-2.0
#include "cli/profile/tuner.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "account/loss.h"
#include "base/machine.h"
#include "cli/common.h"
#include "engine/measure_cost.h"
#include "engine/registry.h"
#include "engine/tune.h"

namespace lacuna::cli {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

}  // namespace

std::string Tuner::open(const std::vector<std::string>& texts) {
  std::string error;
  if (error = load_backends(); !error.empty()) return error;
  if (error = plugin_.load(); !error.empty()) return error;
  if (error = plugin_.configure(fmt::format("tuned calibrate=1 quiet=1 seed={}", o_.seed)); !error.empty()) return error;
  llama_backend_init();
  model_ = load_model(o_.model, plugin_.devices(), error);
  if (!model_) return error;
  Prompts all;
  if (error = cut(model_.get(), o_.texts, texts, o_.context, o_.max_tokens, all); !error.empty()) return error;
  if (all.all.size() < 2)
    return fmt::format("text too short: {} tokens make one prompt of up to {}; need two, one of them to check by: give more texts, or a smaller -c",
                       all.tokens, o_.context);
  std::vector<std::size_t> lengths;
  for (const auto& prompt : all.all) lengths.push_back(prompt.size());
  const std::vector<bool> held = held_back(lengths);
  for (std::size_t i = 0; i < all.all.size(); ++i) {
    Prompts& to = held[i] ? held_ : watched_;
    to.tokens += static_cast<long long>(all.all[i].size());
    to.all.push_back(std::move(all.all[i]));
  }
  watched_.texts = all.texts;
  run_.threads = o_.threads > 0 ? o_.threads : usable_cores();
  run_.ubatch = std::min(o_.context, 512);
  std::error_code bad;
  settings_ = {{"method", "tuned"}, {"methods", methods_}, {"model", as_json(facts_of(model_.get()))}, {"model_bytes", fs::file_size(o_.model, bad)},
              {"ctx", o_.context}, {"max_tokens", o_.max_tokens}, {"seed", o_.seed}, {"texts", all.texts}};
  return "";
}

int Tuner::observe(std::string& found) {
  std::string error;
  const ContextPtr context = make_context(model_.get(), run_, o_.context, run_.ubatch, run_.ubatch, error);
  if (!context) return bad_input(error);
  warm_up(context.get());
  TrialSums sums;
  sums.methods = methods_;
  sums.bands = tuning_bands(o_.context);
  error = plugin_.load_calibration(Json{{"model", as_json(ModelFacts{})}, {"state", as_json(sums)}}.dump());
  if (!error.empty()) return bad_input(error);
  int resumed = 0;
  if (const int code = watch(context.get(), watched_, run_.ubatch, plugin_, part(), settings_, "trying", resumed); code >= 0) return code;
  found = plugin_.calibration(true, error);
  return error.empty() ? -1 : bad_input(error);
}

std::string Tuner::check(const std::string& profile, Checked& out) {
  std::string error = plugin_.configure(fmt::format("tuned:profile={} audit=sample quiet=1 seed={}", profile, o_.seed));
  if (!error.empty()) return error;
  const ContextPtr context = make_context(model_.get(), run_, o_.context, run_.ubatch, run_.ubatch, error);
  if (!context) return error;
  warm_up(context.get());
  plugin_.reset_report();
  plugin_.announce(llama_model_n_layer(model_.get()), -1);
  Progress bar("checking", held_.tokens, "tokens");
  long long read = 0;
  for (const auto& prompt : held_.all) {
    error = read_prompt(context.get(), prompt, run_.ubatch, [&](int tokens) { bar.update(read + tokens); });
    if (!error.empty() || interrupted()) return error;
    read += static_cast<long long>(prompt.size());
  }
  const Json report = plugin_.report();
  const Json lost = report.value(Json::json_pointer("/prefill/lost_mass"), Json::object());
  if (!lost.value("mean", Json()).is_number())
    return fmt::format("text too short: no row of the prompts held back sees {} keys; give longer texts", kMinAuditedKeys);
  out.lost = lost["mean"].get<double>();
  out.upper = lost.value("upper", 1.0);
  out.density = report.value(Json::json_pointer("/prefill/density"), 1.0);
  return "";
}

Result<CostModel> Tuner::costs(const ModelFacts& model) const {
  CallShape shape;
  shape.hq = model.hq;
  shape.hkv = model.hkv;
  shape.dk = model.dk;
  shape.dv = model.dv;
  shape.features = detect_features();
  shape.workers = run_.threads;
  Options like;
  like.threads = run_.threads;
  return costs_of_machine(shape, like, methods_, {});
}

}  // namespace lacuna::cli
