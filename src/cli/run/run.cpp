// SPDX-License-Identifier: Apache-2.0
// lacuna run: reads a prompt, answers it greedily, and says what it cost and what was lost.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cmath>
#include <functional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/llama/model.h"
#include "cli/llama/plugin.h"
#include "cli/llama/prompt.h"
#include "cli/run/outcome.h"
#include "cli/verbs.h"

namespace lacuna::cli {

namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string piece_of(const llama_vocab* vocab, llama_token token) {
  char buffer[256];
  const int n = llama_token_to_piece(vocab, token, buffer, sizeof buffer, 0, false);
  return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
}

llama_token most_likely(llama_context* context, int vocab_size) {
  const float* logits = llama_get_logits_ith(context, -1);
  return static_cast<llama_token>(std::max_element(logits, logits + vocab_size) - logits);
}

}  // namespace

std::string answer(llama_context* context, const RunOptions& o, const std::vector<llama_token>& prompt, int from,
                   bool show, const std::function<void()>& before_answer, Outcome& out) {
  const llama_vocab* vocab = llama_model_get_vocab(llama_get_model(context));
  const int vocab_size = llama_vocab_n_tokens(vocab);
  const int total = static_cast<int>(prompt.size());
  const auto failed = [](int at, int code) {
    return fmt::format("llama_decode failed at token {} (code {}): {}", at, code, last_log_errors());
  };
  out.prompt_tokens = total;
  Progress bar("reading", total, "tokens");
  const auto start = Clock::now();
  for (int at = from; at < total && !interrupted();) {
    const int count = std::min(o.ubatch, total - at);
    if (const int code = decode(context, &prompt[static_cast<std::size_t>(at)], count, at, total - 1)) return failed(at, code);
    llama_synchronize(context);
    at += count;
    out.read = at;
    if (at == total) out.ttft_s = seconds_since(start);
    bar.update(at);
  }
  bar.clear();
  if (out.ttft_s == 0) return "";
  before_answer();
  // The first token needs no cell of its own: it comes from the prompt's logits.
  const int room = static_cast<int>(llama_n_ctx(context)) - total + 1;
  const int most = std::min(o.predict, room);
  const auto decode_start = Clock::now();
  for (int position = total; out.generated < most && !interrupted(); ++position) {
    const llama_token token = most_likely(context, vocab_size);
    if (llama_vocab_is_eog(vocab, token)) break;
    const std::string piece = piece_of(vocab, token);
    out.text += piece;
    ++out.generated;
    if (show) fmt::print("{}", piece), std::fflush(stdout);
    if (out.generated == most) break;
    if (const int code = decode(context, &token, 1, position, position)) return failed(position, code);
    llama_synchronize(context);
    ++out.decode_steps;
    out.decode_s = seconds_since(decode_start);
  }
  return "";
}

namespace {

constexpr const char* kSteps[] = {"estimate", "budget", "attend", "correct", "account"};

// The value at a path of objects, or null when a part of it is missing.
nlohmann::json at_path(const nlohmann::json& j, std::initializer_list<const char*> path) {
  const nlohmann::json* here = &j;
  for (const char* key : path) {
    if (!here->is_object() || !here->contains(key)) return nullptr;
    here = &here->at(key);
  }
  return *here;
}

// Numbers of both phases added; null when neither has one.
nlohmann::json sum_of_phases(const nlohmann::json& report, std::initializer_list<const char*> path) {
  const auto a = at_path(at_path(report, {"prefill"}), path), b = at_path(at_path(report, {"decode"}), path);
  if (!a.is_number() && !b.is_number()) return nullptr;
  return (a.is_number() ? a.get<double>() : 0.0) + (b.is_number() ? b.get<double>() : 0.0);
}

// Of a time that was measured; null where one of the two was not.
nlohmann::json share_of(const nlohmann::json& part, double whole) {
  return part.is_number() && whole > 0 ? nlohmann::json(part.get<double>() / whole) : nlohmann::json();
}

}  // namespace

Json run_json(const RunOptions& o, const Outcome& out, const nlohmann::json& report) {
  Json j;
  j["model"] = o.model;
  j["prompt_tokens"] = out.prompt_tokens;
  j["generated_tokens"] = out.generated;
  j["method"] = o.method;
  const auto host = at_path(report, {"host_version"});
  j["host"] = host.is_string() && !host.get<std::string>().empty() && host.get<std::string>().starts_with("llama")
                  ? host.get<std::string>()
                  : host_version();
  j["kernel"] = at_path(report, {"kernel"});
  j["ttft_s"] = out.ttft_s > 0 ? Json(out.ttft_s) : Json();
  j["prefill_tok_s"] = out.ttft_s > 0 ? Json(out.prompt_tokens / out.ttft_s) : Json();
  j["decode_tok_s"] = out.decode_s > 0 ? Json(out.decode_steps / out.decode_s) : Json();
  for (const char* step : kSteps) j["attention_s"][step] = sum_of_phases(report, {"attention_s", step});
  j["attention_s_windowed"] = sum_of_phases(report, {"windowed", "attention_s"});
  const auto of_writing = at_path(report, {"decode", "attention_s"});
  for (const char* step : kSteps) j["attention_s_decode"][step] = at_path(of_writing, {step});
  j["contract_s"] = sum_of_phases(report, {"contract_s"});
  j["audit_share"]["prefill"] = share_of(at_path(report, {"prefill", "attention_s", "account"}), out.ttft_s);
  j["audit_share"]["decode"] = share_of(at_path(report, {"decode", "attention_s", "account"}), out.decode_s);
  j["windowed_layers"] = at_path(report, {"windowed_layers"});
  for (const char* phase : {"prefill", "decode"}) {
    const auto calls = at_path(report, {phase, "calls"});
    const bool ran = calls.is_number() && calls.get<double>() > 0;
    j["density"][phase] = ran ? at_path(report, {phase, "density"}) : nlohmann::json();
  }
  for (const char* figure : {"mean", "upper", "p95", "max", "rows"}) {
    j["lost_mass"][figure] = at_path(report, {"prefill", "lost_mass", figure});
    j["lost_mass_decode"][figure] = at_path(report, {"decode", "lost_mass", figure});
    j["output_error"][figure] = at_path(report, {"prefill", "output_error", figure});
    j["output_error_decode"][figure] = at_path(report, {"decode", "output_error", figure});
  }
  for (const char* figure : {"mean", "lower", "rows"}) {
    j["top_recall"][figure] = at_path(report, {"prefill", "top_recall", figure});
    j["top_recall_decode"][figure] = at_path(report, {"decode", "top_recall", figure});
  }
  j["contract"] = at_path(report, {"contract"});
  j["certificate"] = at_path(report, {"certificate"});
  const auto read = at_path(report, {"decode", "kv_bytes"}), windowed = at_path(report, {"decode", "windowed", "kv_bytes"});
  j["kv_bytes_read_per_token"] = read.is_number() && windowed.is_number() && out.decode_steps > 0
                                     ? Json((read.get<double>() + windowed.get<double>()) / out.decode_steps)
                                     : Json();
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  j["peak_rss_bytes"] = static_cast<std::int64_t>(usage.ru_maxrss) * 1024;  // Linux counts KiB
  j["side_bytes"] = at_path(report, {"side_bytes"});
  if (const auto patterns = at_path(report, {"patterns"}); !patterns.is_null()) j["patterns"] = patterns;
  j["text"] = out.text;
  return j;
}

namespace {

std::string percent(const Json& x) { return x.is_number() ? fmt::format("{:.2f} %", 100 * x.get<double>()) : "not measured"; }

std::string lost_words(const Json& lost, std::string_view where) {
  if (!lost["rows"].is_number() || lost["rows"].get<double>() == 0)
    return fmt::format("not measured {} (--audit off, or no audited row with 256 visible keys)", where);
  const double upper = lost["upper"].is_number() ? lost["upper"].get<double>() : 1.0;
  const bool chance = lost["upper"] != lost["mean"];
  return fmt::format("{} {} on average{}\n         95 % of rows: at most {}; worst {}; {} rows audited", percent(lost["mean"]), where,
                     !chance      ? ""
                     : upper >= 1 ? ", of too few rows for a bound"
                                  : fmt::format(", with 95 % confidence at most {}", percent(lost["upper"])),
                     percent(lost["p95"]),
                     percent(lost["max"]), lost["rows"].get<std::int64_t>());
}

// "" where no row was looked at.
std::string recall_words(const Json& recall, std::string_view where) {
  if (!recall["rows"].is_number() || recall["rows"].get<double>() == 0) return "";
  return fmt::format("\n         of the keys with the largest scores {} were kept {}, with 95 % confidence at least {}", percent(recall["mean"]),
                     where, percent(recall["lower"]));
}

std::string state_words(const nlohmann::json& phase) {
  const std::string state = phase["state"] == "open" ? "not shown" : phase["state"].get<std::string>();
  if (phase["upper"] == phase["mean"]) return fmt::format("{} ({})", state, percent(phase["mean"]));
  return fmt::format("{} ({}, at most {})", state, percent(phase["mean"]), percent(phase["upper"]));
}

std::string contract_title(const nlohmann::json& contract) {
  return fmt::format("{} within {:.4g} %", contract["of"] == "output_error" ? "output error" : "lost mass", 100 * contract["limit"].get<double>());
}

void print_contract(const nlohmann::json& contract, bool wrote) {
  if (!contract.is_object()) return;
  const auto& prompt = contract["prefill"];
  fmt::print("{} {}: {} in the prompt", bold("contract"), contract_title(contract), state_words(prompt));
  if (wrote) fmt::print(",\n         {} while writing", state_words(contract["decode"]));
  fmt::print("\n         {} of {} heads dense at the prompt's end", prompt["dense_heads"].get<int>(), prompt["heads"].get<int>());
  if (const int layers = prompt["widened_layers"].get<int>()) fmt::print("; {} layers keep more than was asked", layers);
  fmt::print("\n");
}

// What was proved, apart from what was measured.
void print_certificate(const nlohmann::json& x) {
  if (!x.is_object()) return;
  if (x["rows"] == 0) {
    fmt::print("{} nothing: no row of 256 keys or more was written\n", bold("proved  "));
    return;
  }
  fmt::print("{} at most {} lost in the mean of {} rows while writing, {} in any;\n         ", bold("proved  "), percent(x["mean"]),
             x["rows"].get<long long>(), percent(x["max"]));
  if (x["limit"] < 1) fmt::print("{} of the pairs kept only to prove {}, ", percent(x["kept_for_it"]), percent(x["limit"]));
  fmt::print("{:.2f} s to prove it\n", x["seconds"].get<double>());
}

// Before the answer, so that nobody takes it for more than it is.
void warn_of_contract(const nlohmann::json& report) {
  const nlohmann::json contract = at_path(report, {"contract"});
  if (contract.is_object() && contract["prefill"]["state"] != "held")
    note(fmt::format("contract: {} is {} in the prompt", contract_title(contract), state_words(contract["prefill"])));
}

void print_summary(const Json& j, const Outcome& out, const nlohmann::json& report) {
  fmt::print("\n\n");
  if (out.ttft_s > 0)
    fmt::print("{} {} tokens in {:.2f} s ({:.0f} tokens/s)", bold("read    "), out.prompt_tokens, out.ttft_s,
               out.prompt_tokens / out.ttft_s);
  else
    fmt::print("{} interrupted before the prompt of {} tokens was read", bold("read    "), out.prompt_tokens);
  fmt::print("\n{} {} tokens", bold("wrote   "), out.generated);
  if (out.decode_s > 0) fmt::print(" at {:.1f} tokens/s", out.decode_steps / out.decode_s);
  fmt::print("\n{} {}", bold("with    "), j["method"].get<std::string>());
  if (j["kernel"].is_string()) fmt::print(", kernel {}", j["kernel"].get<std::string>());
  fmt::print(", {}\n", j["host"].get<std::string>());
  if (report.is_object()) {
    fmt::print("{} {} of the query-key pairs in the prompt", bold("kept    "), percent(j["density"]["prefill"]));
    if (j["density"]["decode"].is_number()) fmt::print(", {} while writing", percent(j["density"]["decode"]));
    if (const auto n = j["windowed_layers"]; n.is_number() && n.get<int>() > 0)
      fmt::print("; {} layers of the model see a window only: dense, counted apart", n.get<int>());
    fmt::print("\n{} {}{}\n", bold("lost    "), lost_words(j["lost_mass"], "of the attention mass in the prompt"),
               recall_words(j["top_recall"], "in the prompt"));
    if (out.decode_steps > 0)
      fmt::print("{} {}{}\n", bold("        "), lost_words(j["lost_mass_decode"], "while writing"),
                 recall_words(j["top_recall_decode"], "while writing"));
    print_contract(j["contract"], out.decode_steps > 0);
    print_certificate(j["certificate"]);
    double attention = 0;
    for (const auto& [step, s] : j["attention_s"].items()) attention += s.is_number() ? s.get<double>() : 0.0;
    fmt::print("{} {:.2f} s of attention:", bold("spent   "), attention);
    for (const auto& [step, s] : j["attention_s"].items())
      if (s.is_number()) fmt::print(" {} {:.2f}", step, s.get<double>());
    if (const auto& share = j["audit_share"]; share["prefill"].is_number()) {
      fmt::print("; the audit was {} of the time to read", percent(share["prefill"]));
      if (share["decode"].is_number()) fmt::print(", {} of that to write", percent(share["decode"]));
    }
    if (const auto w = j["attention_s_windowed"]; w.is_number() && w.get<double>() > 0)
      fmt::print("; {:.2f} s in layers with a window", w.get<double>());
    fmt::print("\n");
  }
  fmt::print("{} {} at the peak", bold("memory  "), human_bytes(j["peak_rss_bytes"].get<double>()));
  if (j["side_bytes"].is_number()) fmt::print(", {} of it Lacuna's side data", human_bytes(j["side_bytes"].get<double>()));
  fmt::print("\n");
  if (const auto why = at_path(report, {"note"}); why.is_string() && !why.get<std::string>().empty())
    fmt::print("{} {}\n", bold("note    "), why.get<std::string>());
}

// Attention calls the plug-in left to llama.cpp, and why.
void say_what_was_declined(const nlohmann::json& report) {
  if (const auto declined = at_path(report, {"declined"}); declined.is_array())
    for (const auto& reason : declined)
      if (reason.is_string()) note(fmt::format("left to llama.cpp: {}", reason.get<std::string>()));
}

int run(RunOptions& o, const JsonSink& sink) {
  const bool stock = o.method == "stock";
  keep_log(o.verbose);
  catch_interrupt();
  if (const std::string why = load_backends(); !why.empty()) return bad_input(why);
  Plugin plugin;
  std::string error;
  if (!stock) {
    if (error = plugin.load(); !error.empty()) return bad_input(error);
    if (error = plugin.configure(plugin_text(o, o.method)); !error.empty()) return bad_input(error);
    for (const auto* type : {&o.cache_type_k, &o.cache_type_v})
      if (((*type)[0] == 'q' || (*type)[0] == 'i') && *type != "q8_0" && *type != "q4_0")
        note(fmt::format("Lacuna takes no {} cache: llama.cpp does the attention of this run; f16, bf16, f32, q8_0 or q4_0 "
                         "are taken", *type));
  }
  llama_backend_init();
  const ModelPtr model = load_model(o.model, stock ? std::vector<ggml_backend_dev_t>{} : plugin.devices(), error);
  if (interrupted()) return stopped(0);
  if (!model) return bad_input(error);
  std::vector<llama_token> prompt;
  if (!make_prompt(model.get(), o, prompt, error)) return bad_input(error);
  const int tokens = context_tokens(model.get(), o, static_cast<int>(prompt.size()), error);
  if (tokens == 0) return bad_input(error);
  const ContextPtr context = make_context(model.get(), o, tokens, o.batch, o.ubatch, error);
  if (!context) return bad_input(error);
  warm_up(context.get());
  if (!stock) {
    plugin.reset_report();
    plugin.announce(llama_model_n_layer(model.get()), static_cast<long long>(prompt.size()));
  }
  Outcome out;
  const auto before_answer = [&] {
    if (!stock) warn_of_contract(plugin.report());
  };
  error = answer(context.get(), o, prompt, 0, !sink.on_stdout(), before_answer, out);
  if (!error.empty()) return bad_input(error);
  const nlohmann::json report = stock ? nlohmann::json() : plugin.report();
  const Json j = run_json(o, out, report);
  if (!sink.on_stdout()) print_summary(j, out, report);
  say_what_was_declined(report);
  if (j["kernel"] == "cpu.ref" && o.kernel.empty()) note("no AVX2: the slow reference computed attention");
  if (sink.wanted())
    if (error = sink.write(j); !error.empty()) return bad_input(error);
  return interrupted() ? stopped(out.read + out.generated) : kOk;
}

}  // namespace

int verb_run(int argc, char** argv) {
  CLI::App app("Reads a prompt with a model and answers it; says what was kept, what it cost and what was lost.", "run");
  RunOptions o;
  JsonSink sink;
  std::string profile;
  const CLI::Option* method = app.add_option("--method", o.method, "slug:key=value..., or stock for llama.cpp as it is")->type_name("SPEC")->capture_default_str();
  app.add_option("--profile", profile, "a profile of tune or calibrate: the method it is for, with it")->type_name("FILE");
  app.add_flag("--patterns", o.patterns, "with --json: also densities of heads, and maps of what a few of them kept");
  add_run_options(app, o);
  sink.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (const std::string why = take_profile(profile, method->count() > 0, o.method); !why.empty()) return bad_input(why);
  for (const std::string& why : {check_run_options(o), check_method(o.method), sink.check(), check_profiles(o.method, o.model)})
    if (!why.empty()) return bad_input(why);
  if (o.patterns && o.audit == "off") return bad_input("--patterns: maps are of audited rows; it needs --audit sample or full");
  return run(o, sink);
}

}  // namespace lacuna::cli
