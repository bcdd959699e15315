// SPDX-License-Identifier: Apache-2.0
// Session: one method at work. attend() is the whole path of a call:
//   visible -> plan (per sequence) -> lower -> pick -> run -> audit -> count.
#include "engine/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <new>
#include <optional>
#include <stdexcept>

#include <fmt/format.h>

#include "engine/registry.h"

namespace lacuna {

const char* version() { return LACUNA_VERSION; }

Session::Session() : impl_(std::make_unique<Impl>()) {}
Session::~Session() = default;

Result<std::unique_ptr<Session>> Session::open(const Options& options) {
  std::unique_ptr<Session> session(new Session);
  Impl& s = *session->impl_;
  auto method = make_method(options.method, {.profiles = !options.calibrate});
  if (!method.ok()) return method.error();
  constexpr int kMostThreads = 1024;
  if (options.threads < 0 || options.threads > kMostThreads)
    return bad_argument(fmt::format("threads: got {}, need 0 (one per core) to {}", options.threads, kMostThreads));
  s.method = std::move(method.value());
  s.spec = canonical_spec(*s.method);
  if (options.calibrate) {
    auto calibrator = make_calibrator(*s.method);
    if (!calibrator.ok()) return calibrator.error();
    s.calibrator = std::move(calibrator.value());
  }
  s.options = options;
  LACUNA_CHECK(s.open_candidates());
  LACUNA_CHECK(s.open_contract());
  LACUNA_CHECK(s.open_certificate());
  s.have = detect_features();
  if (!options.machine.empty()) {
    bool known = true;
    s.have = mask_features(s.have, options.machine.c_str(), &known);
    if (!known)
      return unknown_name(fmt::format("machine '{}': need none, avx2, avx512, avx512bf16 or amx", options.machine));
  }
  LACUNA_CHECK(s.force(options.kernel));
  if (options.parallel) {
    s.parallel = options.parallel;
  } else {
    s.own_pool = make_thread_pool(options.threads);
    s.parallel = s.own_pool.get();
  }
  s.rng = Rng(options.seed);
  s.recall_rng = Rng(~options.seed);  // its draws change nothing of which rows are audited
  if (options.patterns) s.patterns = std::make_unique<Patterns>();
  return session;
}

// A forced kernel must take whatever the session may be asked: what it refuses of a plain prompt it
// refuses now, and not in the middle of a model.
Status Session::Impl::force(const std::string& name) {
  if (name.empty()) return {};
  forced = find_attend(name);
  if (!forced) {
    std::vector<std::string> names;
    for (const auto* k : kernel::attend_list) names.emplace_back(k->name);
    return unknown_name(fmt::format("kernel '{}': need one of {}", name, fmt::join(names, ", ")));
  }
  if (const std::string missing = missing_features(have, forced->needs); !missing.empty())
    return unsupported(fmt::format("kernel '{}' {}; there is {}", name, missing, describe(have)));
  if (forced->pack == PackFormat::pair16_bf16 && options.precision == Precision::high)
    return unsupported(fmt::format("kernel '{}' rounds to bf16: need precision=fast, or another kernel", name));
  constexpr int kManyRows = 64, kHeadDim = 64;
  const auto prompt = plain_call(format_for(*forced, Dtype::f16), Dtype::f16, options.precision, kManyRows, kHeadDim);
  if (const char* why = forced->why_not ? forced->why_not(prompt, 1) : nullptr)
    return unsupported(fmt::format("kernel '{}' does not take a prompt ({}): need another one, or none", name, why));
  return {};
}

void Session::new_graph() {
  impl_->masks_used = 0;
  impl_->graphs = true;
}

void Session::announce(int n_layers, std::int64_t prompt_tokens) {
  impl_->n_layers = std::max(n_layers, 0);
  impl_->prompt_tokens = prompt_tokens;
}

Result<Plan> Session::Impl::plan(const Method& by, const AttendCall& c, const MaskEntry& mask, const Segment& s, const op::Attend::Args& args) {
  if (s.rows() == 0 || s.n_keys == 0) return dense_plan("nothing to see");
  if (!causal(mask.visible, s)) return dense_plan("rows see keys after their own, or are not in order");
  if (choose_format(have, both_in(c.k.dtype, c.v.dtype), options.precision, forced) == PackFormat::none) return dense_plan("this machine has no AVX2: no estimator runs");
  SegmentKeys keys;
  return by.plan(view_of(c, mask, s, args, keys), *this);
}

// A profile of another model is worse than none: the session is dense from then on and says why. The
// calls tell heads, channels and layout at once; that there are too few layers they never tell.
void Session::Impl::check_profiles(const AttendCall& c) {
  all_layers_seen = all_layers_seen || c.layer <= last_layer;
  last_layer = c.layer;
  if (c.rope.base > 0 && std::find(rope_bases.begin(), rope_bases.end(), c.rope.base) == rope_bases.end() && rope_bases.size() < 8)
    rope_bases.push_back(c.rope.base);
  for (const Method* m = method.get(); m && unfit.empty(); m = m->inner()) {
    const ModelFacts* need = m->calibrated_for();
    if (!need) continue;
    ModelFacts here;
    here.hq = static_cast<int>(c.q.heads());
    here.hkv = static_cast<int>(c.k.heads());
    here.dk = static_cast<int>(c.k.dim());
    here.dv = static_cast<int>(c.v.dim());
    here.rope.layout = c.rope.layout;
    if (const int layers = std::max(n_layers, c.layer + 1); layers > need->n_layers) here.n_layers = layers;
    // Layers with a window may rotate with a base of their own: one base that fits is enough.
    bool fits = rope_bases.empty() || !all_layers_seen;
    for (const double base : rope_bases) fits = fits || std::abs(base - need->rope.base) <= 1e-4 * base;
    if (!fits) here.rope.base = rope_bases.back();
    if (const Status same = check_model(*need, here); !same.ok())
      unfit = fmt::format("{}.profile: {}", m->card().slug, same.error().what);
  }
}

Status Session::Impl::execute(const AttendCall& c, op::Attend::Args args) {
  if (args.packed_k.format == PackFormat::none && !taken_in_place(args, have, parallel->workers(), forced)) {
    args.packed_k = packed_keys(c);
    args.packed_v = packed_values(c);
  }
  const auto* k = pick(kernel::attend_list, args, have, parallel->workers(), options.kernel);
  if (!k) {
    std::vector<Refusal> refusals;
    (void)pick(kernel::attend_list, args, have, parallel->workers(), options.kernel, &refusals);
    std::string text = "no kernel of op attend takes this call";
    for (const auto& r : refusals) text += fmt::format("; {}: {}", r.kernel, r.reason);
    return unsupported(text);
  }
  if (args.n_rows > 1 || !kernel_used) kernel_used = k->name;
  run_kernel(*k, args, *parallel, workspace);
  return {};
}

op::Attend::Args Session::Impl::rows_of(op::Attend::Args a, std::int32_t begin, std::int32_t end) {
  a.n_rows = end - begin;
  a.q += begin * a.q_row;
  if (a.out) a.out += begin * a.out_row;
  if (a.bias) a.bias += begin * a.bias_row;
  return a;
}

double Session::Impl::kv_bytes(const op::Attend::Args& a, const LoweredRuns& runs) const {
  const double kv_heads = runs.heads == 1 ? a.hkv : 1;  // that read what a list names
  const auto raw_cell = static_cast<double>(bytes_of(a.k_type, a.dk) + bytes_of(a.v_type, a.dv));
  // A quantised cache is read where it lies, or packed for the call.
  const double cell = keys_packed ? static_cast<double>(pack_element_bytes(call_k.format)) * (a.dk + a.dv) : raw_cell;
  return (runs.tiles_read * kTileKeys * cell + runs.cells_gathered * raw_cell) * kv_heads;
}

Status Session::Impl::attend(const AttendCall& c) {
  LACUNA_CHECK(check_inputs(c));
  LACUNA_CHECK(check_written("out", c.out, c.q.heads(), c.q.tokens(), c.v.dim()));
  if (c.q.tokens() == 0) return {};
  pass.begin(c.layer, std::chrono::steady_clock::now());
  const Status done = attend_call(c);
  const double seconds = pass.end(std::chrono::steady_clock::now());
  const bool decode_call = phase == &decode || phase == &windowed_decode;
  if (c.counted) (decode_call ? decode : prefill).report.pass_seconds += seconds;
  return done;
}

Status Session::Impl::attend_call(const AttendCall& c) {
  check_profiles(c);
  if (!unfit.empty()) note = unfit;
  MaskEntry& mask = mask_entry(c);
  op::Attend::Args args = base_args(c, mask);
  if (!is_quantised(args.k_type) && !is_quantised(args.v_type)) {
    args.packed_k = packed_keys(c);
    args.packed_v = packed_values(c);
  }
  // Where the model has a window of its own there is little to leave out, and rows that lost nothing would thin
  // out the mean of those that did: dense, and counted apart.
  const bool apart = !c.plan && !options.windowed && windowed(c, mask);
  phase = apart ? &(mask.decode ? windowed_decode : windowed_prefill) : &(mask.decode ? decode : prefill);
  scratch_phase = {};
  side = nullptr;
  if (!c.counted) phase = &scratch_phase;
  if (drawn_now()) {
    patterns->announce(prompt_tokens);
    patterns->choose_layers(n_layers, windowed_layers);
  }

  // Plans first: the common case, nothing left out anywhere, is one kernel call for all rows.
  bool sparse = false;
  plans.clear();
  const std::vector<Segment>* segments = &mask.visible.segments();
  if (calibrator && c.counted) LACUNA_CHECK(observe(c, mask, args, apart));
  chosen.clear();
  heads = nullptr;
  if (c.plan) {
    auto of = take_plans(c, mask, args);
    if (!of.ok()) return of.error();
    segments = of.value();
    sparse = std::any_of(plans.begin(), plans.end(), [](const Plan& p) { return !is_dense(p); });
  } else if (!apart && !calibrator && c.counted && unfit.empty() && method->card().slug != "dense") {
    if (contract) {
      const Steered steered(*this);
      choose_heads(c, mask);
    }
    for (const auto& s : *segments) {
      const Method* by = &method_now();
      if (chooser) {
        chosen.push_back(choose(c, mask, s));
        const Chosen& last = chosen.back();
        if (last.choice.candidate < 0) {
          plans.push_back(dense_plan(""));
          continue;
        }
        by = candidates[last.call.phase == Phase::decode][static_cast<std::size_t>(last.choice.candidate)].get();
      }
      if (heads && heads->all_dense && !heads->peek) {
        plans.push_back(dense_plan(""));
        continue;
      }
      std::optional<Steered> steered;
      if (heads && heads->all_dense) steered.emplace(*this);  // a plan that is made to be peeked at
      auto p = plan(*by, c, mask, s, args);
      steered.reset();
      if (!p.ok()) return p.error();
      if (!p.value().why.empty()) note = p.value().why;
      LACUNA_CHECK(check_plan(p.value(), {args.hq, s.rows(), s.n_keys, 0}, args.hkv, args.n_cells));
      sparse = sparse || !is_dense(p.value());
      plans.push_back(std::move(p.value()));
    }
  }

  if (c.plan_number) *c.plan_number = sparse ? number_of(plans) : kDensePlan;

  PhaseReport& r = phase->report;
  ++r.calls;
  const double allowed_pairs = mask.allowed_pairs * static_cast<double>(args.hq);
  r.allowed_pairs += allowed_pairs;
  if (!sparse) {
    const Timed timed(*this, Verb::attend);
    args.runs = mask.dense.view();
    args.lse = c.lse;
    LACUNA_CHECK(execute(c, args));
    r.attended_pairs += allowed_pairs;
    r.kv_bytes += kv_bytes(args, mask.dense);
    if (drawn_now()) patterns->count_heads(c.layer, args.hq, mask.allowed_pairs, nullptr);
    if (options.audit != Audit::off) audit_lossless(c, mask, args);
    if (certificate) certify_lossless(c, mask, c.counted && !apart);
    for (const Chosen& x : chosen) tell_chooser(x, {});
    return {};
  }
  for (std::size_t i = 0; i < segments->size(); ++i) {
    const auto outcome = attend_segment(c, mask, (*segments)[i], plans[i], args, chooser && chosen[i].choice.trial);
    if (!outcome.ok()) return outcome.error();
    if (chooser) tell_chooser(chosen[i], outcome.value());
  }
  return {};
}

Result<Session::Impl::Outcome> Session::Impl::attend_segment(const AttendCall& c, const MaskEntry& mask, const Segment& s,
                                                             const Plan& plan, const op::Attend::Args& whole, bool trial) {
  op::Attend::Args args = rows_of(whole, s.row_begin, s.row_end);
  const Plan* run = &plan;
  Plan guarded;
  if (heads) {
    const Steered steered(*this);
    run = &(guarded = with_dense_heads(plan, args.hq));
  }
  const bool keep_lse = c.lse || options.audit != Audit::off;
  if (keep_lse) args.lse = lse.grow_as<float>(static_cast<std::size_t>(args.hq) * args.n_rows);
  const auto lower = [&] {
    const Timed timed(*this, Verb::attend);
    lower_plan(*run, mask.visible, s,
               {.q_heads = args.hq, .kv_heads = args.hkv, .block_q = block_q_of(*run, kBlockQ), .gather = !args.bias}, lowered);
  };
  lower();
  if (Plan wider; certificate && certify(c, mask, s, *run, args, wider)) {
    run = &(guarded = std::move(wider));
    const double before = lowered.attended_pairs * (args.hq / lowered.heads);
    lower();
    certificate->pairs(0, lowered.attended_pairs * (args.hq / lowered.heads) - before);
  }
  {
    const Timed timed(*this, Verb::attend);
    args.runs = lowered.view();
    args.pv_skip = pv_skip_of(*run);
    LACUNA_CHECK(execute(c, args));
  }
  phase->report.attended_pairs += lowered.attended_pairs * (args.hq / lowered.heads);
  phase->report.kv_bytes += kv_bytes(args, lowered);
  if (c.lse)
    for (int h = 0; h < args.hq; ++h)
      std::memcpy(c.lse + static_cast<std::size_t>(h) * c.q.tokens() + s.row_begin,
                  args.lse + static_cast<std::size_t>(h) * args.n_rows, sizeof(float) * args.n_rows);
  double allowed = 0;
  for (std::int32_t i = s.row_begin; i < s.row_end; ++i) allowed += static_cast<double>(mask.visible.visible_keys(i));
  Outcome outcome{.density = allowed > 0 ? lowered.attended_pairs / (allowed * lowered.heads) : 1.0};
  outcome.all_kept = lowered.attended_pairs == allowed * lowered.heads && !args.pv_skip;
  if (drawn_now()) patterns->count_heads(c.layer, args.hq, allowed, &lowered);
  if (options.audit != Audit::off) {
    const Timed timed(*this, Verb::account);
    draw_rows(s, trial);
    LACUNA_CHECK(audit_segment(c, mask, s, args, outcome));
  }
  if (heads) {
    const Steered steered(*this);
    tell_contract(lowered, args.hq, allowed, false);
    if (heads->peek) LACUNA_CHECK(peek(c, mask, s, plan, args));
  }
  return outcome;
}

void* Session::Impl::scratch(int slot, std::size_t bytes) {
  if (slot >= static_cast<int>(slots.size())) slots.resize(static_cast<std::size_t>(slot) + 1);
  return slots[static_cast<std::size_t>(slot)].grow(bytes + 64);
}

void Session::Impl::run_op(const char* name, const void* args) {
  const auto run = [&]<class Op>(const kernel::KernelList<Op>& list) {
    if (std::strcmp(name, Op::kName) != 0) return;
    const auto& a = *static_cast<const typename Op::Args*>(args);
    if (const auto* k = pick(list, a, have, parallel->workers())) run_kernel(*k, a, *parallel, workspace);
  };
  run(kernel::strided_scores_list);
  run(kernel::page_scores_list);
  run(kernel::label_scores_list);
  run(kernel::int4_scores_list);
  run(kernel::int8_scores_list);
  run(kernel::keep_mass_list);
  run(kernel::top_weights_list);
  run(kernel::exact_mass_list);
  run(kernel::line_sums_list);
  run(kernel::segment_mass_list);
  run(kernel::alike_list);
  run(kernel::range_sums_list);
  run(kernel::pack_list);
  run(kernel::attend_maxima_list);
}

namespace {

// What a call needs but the machine has not becomes an error.
template <class F>
auto within_memory(const AttendCall& call, const F& body) -> decltype(body()) {
  try {
    return body();
  } catch (const std::length_error&) {  // what vectors throw for sizes beyond any memory
    return Error{ErrorCode::out_of_memory, fmt::format("an attention call of {} rows x {} cells is too large",
                                                       call.q.tokens(), call.k.tokens())};
  } catch (const std::bad_alloc&) {
    return Error{ErrorCode::out_of_memory, "out of memory in an attention call; use a shorter context or fewer slots"};
  }
}

}  // namespace

Status Session::attend(const AttendCall& call) {
  return within_memory(call, [&] { return impl_->attend(call); });
}

Result<std::vector<std::int32_t>> Session::plan(const AttendCall& call) {
  return within_memory(call, [&] { return impl_->plan_words(call); });
}

Status Session::attend_grad(const AttendGradCall& call) {
  return within_memory(call.forward, [&] { return impl_->attend_grad(call); });
}

const std::string& Session::unfit() const { return impl_->unfit; }

std::size_t Session::own_bytes() const {
  const Impl& s = *impl_;
  std::size_t sum = s.workspace.bytes() + s.own_k.bytes() + s.own_v.bytes() + s.ordered.bytes() + s.lse.bytes() + s.own_side.bytes().sum();
  for (const auto& b : s.slots) sum += b.bytes();
  return sum;
}

}  // namespace lacuna
