// SPDX-License-Identifier: Apache-2.0
// lacuna explain: one attention call, planned and lowered but for its result not run: what a method
// keeps, how that looks to a kernel, which kernel takes it, and why the others do not.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cli/case/case.h"
#include "cli/case/problem.h"
#include "cli/common.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "engine/made_up.h"
#include "engine/registry.h"
#include "engine/session.h"

namespace lacuna::cli {
namespace {

// q [nq][hq][d], then k [nkv][hkv][d], f32 in the machine's order; nothing else in the file.
std::string read_data(const std::string& path, std::vector<float>& q, std::vector<float>& k) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::size_t need = (q.size() + k.size()) * sizeof(float);
  if (!in) return fmt::format("--data {}: cannot read it", path);
  const auto size = static_cast<std::size_t>(std::max<std::streamoff>(in.tellg(), 0));
  if (size != need)
    return fmt::format("--data {}: {} bytes, need {} for q [nq][hq][d] and k [nkv][hkv][d] in f32", path, size, need);
  in.seekg(0);
  in.read(reinterpret_cast<char*>(q.data()), static_cast<std::streamsize>(q.size() * sizeof(float)));
  in.read(reinterpret_cast<char*>(k.data()), static_cast<std::streamsize>(k.size() * sizeof(float)));
  return in ? "" : fmt::format("--data {}: cannot read it", path);
}

std::string lists_text(std::int32_t lists) {
  return lists == 1 ? "one list for all heads" : fmt::format("{} lists, one per head or group", lists);
}

std::string pattern_text(const Pattern& pattern) {
  if (const auto* w = std::get_if<Window>(&pattern))
    return fmt::format("closed form: the first {} keys, a window of {}{}", w->sink, w->window,
                       w->dense_from >= 0 ? fmt::format(", rows from key {} on see everything", w->dense_from) : "");
  if (const auto* m = std::get_if<BlockMap>(&pattern))
    return fmt::format("block list: {} rows x {} keys, {}, {} blocks kept", m->block_q, m->block_k, lists_text(m->heads), m->cols.size());
  if (const auto* r = std::get_if<Ranges>(&pattern))
    return fmt::format("ranges of {}: blocks of {} rows, {}, {} ranges kept", r->of == Ranges::Of::keys ? "keys" : "cells",
                       r->block_q, lists_text(r->heads), r->ranges.size());
  return "everything the model allows";
}

// What attend may leave out of the patterns.
std::string skip_text(const Plan& plan) {
  if (!pv_skip_of(plan)) return "";
  const auto [least, most] = std::minmax_element(plan.pv_skip.begin(), plan.pv_skip.end());
  return fmt::format("; tiles whose weights fall below 2^-{:g}{} of a row's largest are left out when their scores are known "
                     "(not counted in density)", *least, *least < *most ? fmt::format(" to 2^-{:g}", *most) : "");
}

// Patterns by the heads that take them.
std::string pattern_text(const Plan& plan) {
  if (plan.routes.empty()) return pattern_text(plan.pattern());
  std::string out;
  for (Route r = kRouteOff; r < static_cast<Route>(plan.patterns.size()); ++r) {
    const auto n = std::count(plan.routes.begin(), plan.routes.end(), r);
    if (n == 0) continue;
    if (!out.empty()) out += "; ";
    out += fmt::format("{} of {} heads: {}", n, plan.routes.size(),
                       r == kRouteOff ? "nothing" : r == kRouteFull ? "everything the model allows"
                                                                     : pattern_text(plan.patterns[static_cast<std::size_t>(r)]));
  }
  return out;
}

std::string plan_text(const Plan& plan) { return pattern_text(plan) + skip_text(plan); }

const char* layout_name(const Plan& plan) {
  if (plan.patterns.size() > 1) return "mixed";
  const Pattern& p = plan.pattern();
  return std::holds_alternative<Window>(p) ? "closed" : std::holds_alternative<BlockMap>(p) ? "block" : std::holds_alternative<Ranges>(p) ? "ranges" : "dense";
}

// A case has more keys than a shape has use for; a key without effect would mislead.
std::string unused_key(const std::string& words) {
  static const std::vector<std::string> kUsed = {"hq", "hkv", "nq", "nkv", "d", "dv", "kv", "v", "softcap", "threads", "seed", "precision", "kernel", "machine"};
  std::istringstream in(words);
  for (std::string word; in >> word;)
    if (const std::string key = word.substr(0, word.find('=')); key.size() < word.size() && std::find(kUsed.begin(), kUsed.end(), key) == kUsed.end())
      return key;
  return "";
}

// The whole list of op attend, in order: before the chosen kernel those that refused, behind it the
// others, each asked alone.
std::vector<Refusal> whole_walk(const op::Attend::Args& args, Features have, int workers, const std::string& forced,
                                const kernel::Kernel<op::Attend>* chosen) {
  std::vector<Refusal> out;
  (void)pick(kernel::attend_list, args, have, workers, forced, &out);
  if (!chosen) return out;
  out.push_back({chosen->name, ""});
  bool behind = false;
  for (const auto* k : kernel::attend_list) {
    if (behind) {
      std::vector<Refusal> alone;
      const bool takes = pick(kernel::attend_list, args, have, workers, forced.empty() && !k->only_forced ? k->name : forced, &alone) == k;
      std::string why = fmt::format("not asked: stands behind {}", chosen->name);
      for (const Refusal& r : alone)
        if (!takes && r.kernel == k->name) why = r.reason;
      out.push_back({k->name, why});
    }
    behind = behind || k == chosen;
  }
  return out;
}

// What a method that leaves the choice to the engine is decided by: costs of this shape on this machine.
struct CostLine {
  std::string spec;
  double select = 0, break_even = 0;  // seconds; density
};
struct CostTable {
  double dense = 0;
  std::vector<CostLine> lines;
  std::string file;
};
CostTable cost_table(const PhaseCost& cost, double rows, double keys, double pairs) {
  CostTable t{cost.dense(pairs), {}, {}};
  for (std::size_t i = 0; i < cost.candidates.size(); ++i)
    t.lines.push_back({cost.candidates[i].spec, cost.candidates[i].select.seconds(rows, keys), cost.break_even(i, rows, keys, pairs)});
  return t;
}
std::string pays_text(double break_even) {
  if (break_even <= 0) return "never pays here";
  return break_even >= 1 ? "pays at any density" : fmt::format("pays below a density of {:.2f}", break_even);
}

}  // namespace

int verb_explain(int argc, char** argv) {
  CLI::App app("Says what a method would do with one attention call, and which kernel would run it.", "explain");
  std::string spec, shape, data = "structured", precision, kernel_name, machine;
  int threads = 0;
  std::uint64_t seed = 1;
  std::int64_t prompt_tokens = -1;
  int layers = 0, layer = 0;
  JsonSink json;
  app.add_option("--method", spec, "SPEC: slug:key=value")->default_str("dense");
  app.add_option("--shape", shape, "hq=32,hkv=8,nq=512,nkv=8192,d=128[,kv=f16]")->required();
  app.add_option("--data", data, "structured, random, or a file of f32: q [nq][hq][d], then k [nkv][hkv][d]");
  app.add_option("--prompt-tokens", prompt_tokens, "the prompt's whole length, as a host announces it (default: unknown)");
  app.add_option("--layers", layers, "layers of the model, for methods that ask (default: unknown)")->check(CLI::Range(1, 4096));
  app.add_option("--layer", layer, "the layer of this call, from 0")->check(CLI::Range(0, 4095))->capture_default_str();
  app.add_option("--precision", precision, "fast (default) or high");
  app.add_option("--kernel", kernel_name, "force one kernel of op attend by name");
  app.add_option("--machine", machine, "pretend to be less: none, avx2, avx512, avx512bf16");
  app.add_option("-t,--threads", threads, "threads (0 = one per core)")->check(CLI::Range(0, 1024));
  app.add_option("--seed", seed, "of the data");
  json.add_option(app);
  if (const int code = parse_arguments(app, argc, argv); code >= 0) return code;
  if (const std::string why = json.check(); !why.empty()) return bad_input(why);
  if (spec.empty()) spec = "dense";

  // A shape is a case without an op.
  std::string words = "attend " + shape;
  std::replace(words.begin(), words.end(), ',', ' ');
  auto parsed = parse_case(words, {.precision = precision, .kernel = kernel_name, .machine = machine, .seed = std::to_string(seed), .threads = threads});
  if (!parsed.ok()) return bad_input(fmt::format("--shape {}: {}", shape, parsed.error().what));
  if (const std::string key = unused_key(words); !key.empty())
    return bad_input(fmt::format("--shape {}: explain has no use for '{}': what is kept is the method's to say", shape, key));
  if (layers > 0 && layer >= layers) return bad_input(fmt::format("--layer: got {}, need 0..{} with --layers {}", layer, layers - 1, layers));
  const Case c = parsed.value();
  auto made = make_method(spec);
  if (!made.ok()) return bad_input(made.error().what);

  Session::Impl s;
  s.method = std::move(made.value());
  s.have = features_of(c);
  s.options.precision = c.precision;
  s.options.kernel = c.kernel;
  s.forced = find_attend(c.kernel);
  s.own_pool = make_thread_pool(c.threads);
  s.parallel = s.own_pool.get();
  s.n_layers = layers;
  s.prompt_tokens = prompt_tokens;

  std::vector<float> q(static_cast<std::size_t>(c.nq * c.hq * c.d)), keys(static_cast<std::size_t>(c.nkv * c.hkv * c.d));
  if (data == "structured") {
    make_up(c.hq, c.hkv, c.nq, c.nkv, c.d, c.seed, q, keys);
  } else if (data == "random") {
    fill_normal(q.data(), Dtype::f32, static_cast<std::int64_t>(q.size()), c.seed);
    fill_normal(keys.data(), Dtype::f32, static_cast<std::int64_t>(keys.size()), c.seed + 1);
  } else if (const std::string why = read_data(data, q, keys); !why.empty()) {
    return bad_input(why);
  }
  std::vector<unsigned char> k = as_type(keys, c.kv), v(static_cast<std::size_t>(bytes_of(c.v_type(), c.nkv * c.hkv * c.value_dim())));
  std::vector<float> out(static_cast<std::size_t>(c.nq * c.hq * c.value_dim()));
  AttendCall call;
  call.layer = layer;
  call.softcap = static_cast<float>(c.softcap);
  call.q = token_major(q.data(), Dtype::f32, 1, c.hq, c.nq, c.d);
  call.k = token_major(k.data(), c.kv, 1, c.hkv, c.nkv, c.d);
  call.v = token_major(v.data(), c.v_type(), 1, c.hkv, c.nkv, c.value_dim());
  call.out = token_major(out.data(), Dtype::f32, 1, c.hq, c.nq, c.value_dim());
  s.check_profiles(call);
  if (!s.unfit.empty()) return bad_input(s.unfit);
  auto& mask = s.mask_entry(call);
  op::Attend::Args args = s.base_args(call, mask);
  const Segment& segment = mask.visible.segments().front();
  CostTable costs;
  if (s.method->candidates()) {
    if (const Status opened = s.open_candidates(); !opened.ok()) return bad_input(opened.error().what);
    const CostModel& model = s.costs_for(call);
    costs = cost_table(c.nq == 1 ? model.decode : model.prefill, static_cast<double>(c.nq), static_cast<double>(c.nkv), mask.allowed_pairs * args.hq);
    costs.file = cost_file(s.shape_of(call), s.chooser->specs(Phase::prefill), s.chooser->specs(Phase::decode));
  }
  auto planned = s.plan(*s.method, call, mask, segment, args);
  if (!planned.ok()) return bad_input(planned.error().what);
  const Plan& plan = planned.value();
  const Grid grid{args.hq, segment.rows(), segment.n_keys, segment.key_of_row.front()};
  if (const Status good = check_plan(plan, grid, args.hkv, args.n_cells); !good.ok()) return bad_input(good.error().what);
  lower_plan(plan, mask.visible, segment,
             {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(plan, kBlockQ), .gather = !args.bias}, s.lowered);
  args.runs = s.lowered.view();
  args.pv_skip = pv_skip_of(plan);
  if (args.packed_k.format == PackFormat::none && !taken_in_place(args, s.have, s.parallel->workers(), s.forced)) {
    args.packed_k = s.packed_keys(call);
    args.packed_v = s.packed_values(call);
  }
  const auto* chosen = pick(kernel::attend_list, args, s.have, s.parallel->workers(), c.kernel);
  const auto kernels = whole_walk(args, s.have, s.parallel->workers(), c.kernel, chosen);

  const double allowed = mask.allowed_pairs * args.hq, attended = s.lowered.attended_pairs * (args.hq / s.lowered.heads);
  std::int64_t full = 0, partial = 0;
  for (const TileRun& r : s.lowered.runs) (r.bits < 0 ? full : partial) += r.end - r.begin;
  const auto dense_heads = std::count(plan.routes.begin(), plan.routes.end(), kRouteFull);
  const double bytes = s.kv_bytes(args, s.lowered);
  const std::string canonical = canonical_spec(*s.method);

  if (json.wanted()) {
    nlohmann::ordered_json params = nlohmann::ordered_json::object(), walk = nlohmann::ordered_json::array();
    for (Method* m : chain_of(*s.method))  // a wrapper's parameters bear its name: two may have one name
      for (const auto& p : describe_params(*m))
        params[(m->inner() ? fmt::format("{}.", m->card().slug) : "") + p.name] = p.value;
    for (const auto& r : kernels)
      walk.push_back({{"kernel", r.kernel}, {"refused", r.reason.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(r.reason)}});
    nlohmann::ordered_json cost_lines;
    if (costs.dense > 0) {
      cost_lines = {{"dense_s", costs.dense}, {"candidates", nlohmann::ordered_json::array()}};
      for (const auto& l : costs.lines)
        cost_lines["candidates"].push_back({{"spec", l.spec}, {"select_s", l.select}, {"pays_below_density", l.break_even}});
    }
    const std::string why = json.write(
        {{"method", canonical},
         {"parameters", params},
         {"shape", c.line()},
         {"data", data},
         {"layer", layer},
         {"machine", describe(s.have)},
         {"plan", {{"layout", layout_name(plan)}, {"text", plan_text(plan)}, {"dense_heads", dense_heads}, {"why", plan.why}}},
         {"density", allowed > 0 ? attended / allowed : 1},
         {"allowed_pairs", allowed},
         {"attended_pairs", attended},
         {"runs", s.lowered.runs.size()},
         {"full_tiles", full},
         {"partial_tiles", partial},
         {"rows_per_block", s.lowered.block_q},
         {"kv_bytes", bytes},
         {"seconds", {{"estimate", s.phase->report.seconds[0]}, {"budget", s.phase->report.seconds[1]}}},
         {"costs", cost_lines},
         {"packed", name_of(args.packed_k.format)},
         {"kernel", chosen ? nlohmann::ordered_json(chosen->name) : nlohmann::ordered_json()},
         {"kernels", walk}});
    if (!why.empty()) return bad_input(why);
    if (json.on_stdout()) return chosen ? kOk : kBadInput;
  }

  const auto line = [](std::string_view name, std::string_view text) {
    const std::string head = fmt::format("{:<10}", name), body = paragraph(text, std::string(10, ' '));
    fmt::print("{}{}", bold(head), body.substr(std::min<std::size_t>(10, body.size())));
  };
  line("method", canonical);
  line("shape", c.line().substr(c.line().find(" b=") + 1) + ", causal, " +
                    (data == "structured" ? "made-up data with landmarks and drift" : data == "random" ? "random data" : "data of " + data));
  line("plan", plan_text(plan));
  if (!plan.why.empty()) line("why", plan.why);
  line("density", fmt::format("{:.4f} ({:.3g} of {:.3g} pairs)", allowed > 0 ? attended / allowed : 1, attended, allowed));
  line("lowered", fmt::format("{} runs in blocks of {} rows: {} full and {} partial tiles of {} keys", s.lowered.runs.size(),
                              s.lowered.block_q, full, partial, kTileKeys));
  line("reads", fmt::format("{} of K and V per call, packed as {}", human_bytes(bytes), name_of(args.packed_k.format)));
  if (s.phase->report.seconds[0] > 0)
    line("took", fmt::format("estimate {:.1f} ms, budget {:.1f} ms", s.phase->report.seconds[0] * 1e3, s.phase->report.seconds[1] * 1e3));
  line("machine", describe(s.have));
  if (costs.dense > 0) {
    line("costs", fmt::format("of this shape on this machine: dense {:.3g} ms{}", costs.dense * 1e3,
                              costs.file.empty() ? "" : fmt::format("; measured once, delete {} to measure anew", costs.file)));
    for (const auto& l : costs.lines)
      fmt::print("  {:<24}choosing {:.3g} ms; {}\n", l.spec, l.select * 1e3, pays_text(l.break_even));
  }
  line("kernels", chosen ? "of op attend, in the order they are asked" : "none of op attend takes this call");
  for (const auto& r : kernels) {
    if (r.reason.empty()) {
      fmt::print("  {:<24}{}\n", r.kernel, bold("takes it"));
      continue;
    }
    const std::string head = fmt::format("  {:<24}", r.kernel), body = paragraph("no: " + r.reason, std::string(26, ' '));
    fmt::print("{}{}", head, dim(body.substr(std::min<std::size_t>(26, body.size()))));
  }
  if (data == "structured" || data == "random")
    fmt::print("\nA model's own data gives other figures: lacuna run --audit sample tells them.\n");
  return chosen ? kOk : kBadInput;
}

}  // namespace lacuna::cli
